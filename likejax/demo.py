"""The demo: four small models from raw images to bits/dim, OOD scores and a report page."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from likejax import ood, plot
from likejax.data.dataset import Dataset
from likejax.data.loading import load
from likejax.data.splits import hold_out
from likejax.density import bits_per_dim
from likejax.evaluation import Evaluation, evaluate
from likejax.models.baselines import FullGaussian, PixelHistogram
from likejax.models.dequantize import Dequantized
from likejax.models.pixelcnn import PixelCNN
from likejax.models.vae import VAE
from likejax.presets import preset
from likejax.train.loop import fit
from likejax.train.run import Run

GLOW, PIXELCNN, FFJORD, HVAE = "glow/digits", "pixelcnn/digits", "ffjord/digits", "hvae/digits"
DRAWS = 16
SCORE_DRAWS = 4
BACKGROUND_STEPS = 250
PHOTOGRAPHS = "photographs+gray+resize:8x8+levels:17"


def run_demo(out: Path, *, seed: int = 0) -> Path:
    """Trains four models on digits, compares bits/dim with baselines, tells digits from two real shifts.

    Writes ``report.html`` with pictures and ``ood/`` with the whole OOD report.

    Args:
      out: Directory of the runs, the pictures and the page; finished runs there are reused.
      seed: Of initialization, shuffling, noise, evaluation and samples.

    Returns:
      Path of the page.
    """
    keys = jax.random.split(jax.random.key(seed), 8)
    (
        glow_key,
        evaluation_key,
        sample_key,
        latent_key,
        background_key,
        ood_key,
        pixelcnn_key,
        ffjord_key,
    ) = keys
    hvae_key, levels_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 8))
    parts = {split: load("digits", split=split) for split in ("train", "validation", "test")}
    # rows that choose weights calibrate nothing
    parts["validation"], parts["held out"] = hold_out(parts["validation"])
    runs = {
        name: fit(
            preset(name),
            parts["train"],
            validation=parts["validation"],
            workdir=out / place,
            key=key,
        )
        for name, place, key in (
            (GLOW, "glow", glow_key),
            (PIXELCNN, "pixelcnn", pixelcnn_key),
            (FFJORD, "ffjord", ffjord_key),
            (HVAE, "hvae", hvae_key),
        )
    }
    glow, pixelcnn = runs[GLOW].density, runs[PIXELCNN].density
    assert isinstance(glow, Dequantized)
    assert isinstance(pixelcnn, PixelCNN)
    hvae = runs[HVAE].density
    assert isinstance(hvae, VAE)
    models = {
        GLOW: glow,
        PIXELCNN: pixelcnn,
        FFJORD: runs[FFJORD].density,
        HVAE: hvae,
        "per-pixel histogram": PixelHistogram.fit(parts["train"]),
        "full-covariance Gaussian": FullGaussian.fit(parts["train"]),
    }
    table = {
        name: [
            evaluate(model, parts[s], key=evaluation_key, draws=DRAWS)
            for s in ("validation", "test")
        ]
        for name, model in models.items()
    }
    for name, evaluations in table.items():
        for evaluation in evaluations:
            print(f"{name:26} {evaluation}")
    shifts = _shifts(runs[GLOW], parts, out, background_key, ood_key)
    print(
        "\nAUROC of digits against two real shifts of them, scores of the Glow\n"
        + shifts.auroc_table()
        + "\n"
    )
    pictures = {
        "samples.png": _samples(models, parts["test"], sample_key),
        "completions.png": _completions(pixelcnn, parts["test"], sample_key),
        "bits.png": _bits(pixelcnn, parts["test"]),
        "reconstructions.png": _reconstructions(glow, parts["test"], latent_key),
        "levels.png": _levels(hvae, parts["test"], levels_key),
        "curves.png": _curves(runs),
        "scores.png": shifts.plot()["histograms"],
    }
    shifts.write(out / "ood")
    for name, figure in pictures.items():
        figure.savefig(out / name, dpi=130)
    error = round_trip_error(glow, parts["test"], latent_key)
    page = out / "report.html"
    page.write_text(_page(table, shifts, pictures, runs, seed, error))
    record = {name: [e.to_dict() for e in evaluations] for name, evaluations in table.items()}
    (out / "report.json").write_text(json.dumps(record, indent=2))
    print(f"report: {page}")
    return page


def _shifts(
    run: Run, parts: dict[str, Dataset], out: Path, background_key: jax.Array, key: jax.Array
) -> ood.Report:
    """Digits against patches of photographs, and against digits that lie on their side."""
    background = ood.fit_background(
        dataclasses.replace(run.experiment, steps=BACKGROUND_STEPS),
        parts["train"],
        validation=parts["validation"],
        workdir=out / "background",
        key=background_key,
    )
    turned = dataclasses.replace(parts["test"].transpose(), name="digits transposed")
    scores: list[ood.Score] = [
        ood.NegativeLogProb(draws=SCORE_DRAWS),
        ood.Typicality(draws=SCORE_DRAWS),
        ood.LikelihoodRatio(background.density, draws=SCORE_DRAWS),
        ood.InputComplexity(draws=SCORE_DRAWS),
        ood.ComplexityOnly(),
    ]
    return ood.benchmark(
        run.density,
        inside=parts["test"],
        outside=[load(PHOTOGRAPHS, split="test"), turned],
        scores=scores,
        held_out=parts["held out"],
        train=parts["train"],
        selected_on=parts["validation"],
        key=key,
    )


def _samples(models: dict[str, Any], test: Dataset, key: jax.Array) -> Any:
    drawn = [np.asarray(models[name].sample(key, 32)) for name in (GLOW, PIXELCNN, FFJORD, HVAE)]
    title = "Two rows each: test images; samples of the Glow, the PixelCNN++, the FFJORD, the hierarchical VAE"
    rows = np.concatenate([test.examples[:32], *drawn])
    return plot.sheet(rows, levels=test.levels or 256, columns=16, title=title)


def _completions(density: PixelCNN, test: Dataset, key: jax.Array) -> Any:
    """Upper halves of test images, completed three times."""
    height, width, _ = density.event_shape
    images = test.examples[:16]
    known = height // 2 * width
    rows = [np.where(np.arange(height)[:, None, None] < height // 2, images, 0)]
    rows += [np.asarray(density.inpaint(images, known, key=k)) for k in jax.random.split(key, 3)]
    title = (
        "Upper halves of test images; three completions of each by the PixelCNN++; the test images"
    )
    return plot.sheet(
        np.concatenate([*rows, images]), levels=density.levels, columns=16, title=title
    )


def _bits(density: PixelCNN, test: Dataset) -> Any:
    """Where the bits of test images go."""
    bits = bits_per_dim(np.asarray(density.log_prob_map(test.examples[:32])), (1,)).sum(-1)
    title = "Bits that each pixel of a test image needs, given those before it"
    return plot.maps(bits, label="bits", columns=16, title=title)


def _reconstructions(density: Dequantized, test: Dataset, key: jax.Array) -> Any:
    """Test images, their exact decoding, and what the coarse latents alone determine."""
    images = test.examples[:16]
    top, *fine = density.encode(images, key=key)
    exact = density.decode((top, *fine))
    coarse = density.decode((top, *(jnp.zeros_like(part) for part in fine)))
    rows = np.concatenate([images, np.asarray(exact), np.asarray(coarse)])
    title = (
        "Test images; decoded from all latents; from the top latents alone, the rest at their mean"
    )
    return plot.sheet(rows, levels=density.levels or 256, columns=16, title=title)


def _levels(density: VAE, test: Dataset, key: jax.Array) -> Any:
    """Test images, and what the hierarchical VAE expects when it infers all latents, the upper ones, none."""
    images = test.examples[:16]
    rows = [
        np.asarray(density.reconstruct(images, key=key, from_level=k))
        for k in range(density.depth + 1)
    ]
    title = "Test images; expected by the hierarchical VAE from all its latents; from the upper ones; from none"
    expected = np.rint(np.concatenate([images, *rows])).astype(images.dtype)
    return plot.sheet(expected, levels=density.levels or 256, columns=16, title=title)


def round_trip_error(density: Dequantized, test: Dataset, key: jax.Array) -> float:
    """Largest change of a pixel in ``decode(encode(x))``, in units of the unit interval."""
    y = density.dequantize(jnp.asarray(test.examples[:64]), key)
    flow = density.flow
    return float(jnp.abs(flow.decode(flow.encode(y)) - y).max())


def _curves(runs: dict[str, Run]) -> Any:
    lines = {}
    for name, run in runs.items():
        shape = run.density.event_shape
        steps = [
            (r["step"], bits_per_dim(r["log_prob"], shape)) for r in run.history if "loss" in r
        ]
        checks = [(r["step"], r["validation"]) for r in run.history if "validation" in r]
        lines[f"{name}, training batches"] = tuple(zip(*steps, strict=True))
        lines[f"{name}, validation"] = tuple(zip(*checks, strict=True))
    return plot.curves(lines, x_label="step", y_label="bits/dim, one draw", title="Training")  # type: ignore[arg-type]


def _page(
    table: dict[str, list[Evaluation]],
    shifts: ood.Report,
    pictures: dict[str, Any],
    runs: dict[str, Run],
    seed: int,
    round_trip: float,
) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{_cell(e)}</td>" for e in evaluations)
        + f"<td>{evaluations[0].kind.value}</td></tr>"
        for name, evaluations in table.items()
    )
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{_png(figure)}" alt="{html.escape(name)}"></figure>'
        for name, figure in pictures.items()
    )
    test = table[GLOW][1]
    best = "; ".join(f"{name}: step {run.best_step} of {run.steps}" for name, run in runs.items())
    outside = shifts.sets[1:]
    held_out = sum(shifts.parts[part]["n"] for part in ("fitted on", "calibrated with"))
    heads = "".join(f"<th>{html.escape(s.name)}</th>" for s in outside)
    scores = "".join(
        f"<tr><td>{html.escape(r.label)}</td>"
        + "".join(f"<td>{r.metrics[s.name]['auroc']}</td>" for s in outside)
        + f"<td>{r.flagged(shifts.sets[0].name):.3f}</td></tr>"
        for r in shifts.scores
    )
    sources = "".join(
        f"<li>{html.escape(s.name)}: {html.escape('; '.join(s.record['provenance']))}</li>"
        for s in outside
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>likejax demo</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }} td, th {{ padding: .3rem .9rem; border-bottom: 1px solid #ccc; text-align: left }}
img {{ max-width: 100% }} figure {{ margin: 1.5rem 0 }}
</style></head><body>
<h1>A Glow, a PixelCNN++, an FFJORD and a hierarchical VAE on handwritten digits</h1>
<p>1,797 images of 8x8 pixels with 17 gray levels, cut into parts that do not overlap. The weights are the best on
validation ({best}); seed {seed}; {DRAWS} draws an image where the number is a bound or the estimate of one (~).
Errors are standard errors over the {table[GLOW][0].n} validation and {test.n} test images. A uniform density scores
log2 17 = 4.087.</p>
<table><tr><th>bits/dim</th><th>validation</th><th>test</th><th>kind</th></tr>{rows}</table>
<p>The largest change of a pixel in encoding and decoding by the Glow is {round_trip:.1e} of the value range.</p>
<h2>Inside or outside?</h2>
<p>AUROC of telling test digits from outside images by the Glow, with 95 % intervals; OOD is the positive class. The
scores were fitted on one half of {held_out} held-out images, which chose no weights, and calibrated with the other to
a false-positive rate of {shifts.fpr:g}; the last column is the share of test digits that they flag. The patches
overlap and come from two photographs: the intervals, which take examples as independent, are too narrow for them.
Everything else is in <a href="ood/report.md">ood/report.md</a>.</p>
<table><tr><th>score</th>{heads}<th>digits flagged</th></tr>{scores}</table>
<ul>{sources}</ul>
{figures}
</body></html>
"""


def _cell(evaluation: Evaluation) -> str:
    sign = {"exact": "", "bound": "&le; ", "estimate": "~ "}[evaluation.kind.value]
    return f"{sign}{evaluation.bits_per_dim:.3f} ± {evaluation.bits_per_dim_error:.3f}"


def _png(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return base64.b64encode(buffer.getvalue()).decode()
