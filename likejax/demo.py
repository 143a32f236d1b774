"""The demo: four small models from raw images to bits/dim, OOD scores and a report page."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from likejax import ood, plot
from likejax.data.dataset import Dataset
from likejax.data.loading import load
from likejax.data.splits import hold_out
from likejax.density import Density, bits_per_dim
from likejax.evaluation import Evaluation, evaluate
from likejax.models.baselines import FullGaussian, PixelHistogram
from likejax.models.dequantize import Dequantized
from likejax.models.pixelcnn import PixelCNN
from likejax.models.vae import VAE
from likejax.ood.render import histograms
from likejax.presets import preset
from likejax.train.loop import fit
from likejax.train.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GLOW, PIXELCNN, FFJORD, HVAE = "glow/digits", "pixelcnn/digits", "ffjord/digits", "hvae/digits"
STEPS = {GLOW: 200, PIXELCNN: 240, FFJORD: 300, HVAE: 400}
"""Training steps of each model, for most of them two thirds of their preset, to be short."""
DRAWS = 4
"""Draws for each test image, where the number is a bound or an estimate."""
SCORE_DRAWS = 4
"""Draws for each image in OOD scores."""
PHOTOGRAPHS = "photographs+gray+resize:8x8+levels:17"

_KEYS: tuple[str, ...] = (
    *(GLOW, PIXELCNN, FFJORD, HVAE),
    *("evaluation", "background", "ood", "pictures"),
)
_STAGES = 9


class _Stages:
    """Lines that announce what the demo does next, with the time since its start."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._count = 0

    def announce(self, text: str) -> None:
        self._count += 1
        seconds = round(time.monotonic() - self._start)
        print(f"[{self._count}/{_STAGES}, {seconds} s] {text}", flush=True)


def run_demo(out: Path, *, seed: int = 0) -> Path:
    """Trains four models on digits, compares bits/dim with baselines, scores two real shifts.

    Writes ``report.html`` with pictures, ``report.json`` and ``ood/`` with the whole OOD report.

    Args:
      out: Directory of the runs, the pictures and the page; finished runs in it are used again.
      seed: Random seed of initialization, shuffling, noise, evaluation and samples.

    Returns:
      Path of the page.
    """
    stages = _Stages()
    stages.announce("loading digits")
    keys = dict(zip(_KEYS, jax.random.split(jax.random.key(seed), len(_KEYS)), strict=True))
    parts = _load_digits()
    of_models = _PicturesOfModels(parts["test"], keys["pictures"])
    runs: dict[str, Run] = {}
    for name in (GLOW, PIXELCNN, FFJORD, HVAE):
        stages.announce(f"training {name}: compiling first, then {STEPS[name]} steps")
        place = out / name.split("/")[0]
        runs[name] = fit(
            preset(name).override({"steps": STEPS[name]}),
            parts["train"],
            validation=parts["validation"],
            workdir=place,
            key=keys[name],
        )
        of_models.start(name, runs[name].density)
    stages.announce(f"evaluating the models and two baselines on {len(parts['test'])} test images")
    models = {name: run.density for name, run in runs.items()}
    models["per-pixel histogram"] = PixelHistogram.fit(parts["train"])
    models["full-covariance Gaussian"] = FullGaussian.fit(parts["train"])
    table = {}
    for name, model in models.items():
        # in chunks of the size of those that training validates, for which it has compiled
        size = runs[name].experiment.batch_size if name in runs else len(parts["test"])
        table[name] = evaluate(
            model, parts["test"], key=keys["evaluation"], draws=DRAWS, batch_size=size
        )
        print(f"{name:26} {table[name]}", flush=True)
    stages.announce("training a background Glow on mutated digits, for likelihood ratios")
    background = ood.fit_background(
        runs[GLOW].experiment,
        parts["train"],
        validation=parts["validation"],
        workdir=out / "background",
        key=keys["background"],
    )
    stages.announce("scoring digits against two real shifts of them")
    shifts = _shifts(runs[GLOW].density, background.density, parts, keys["ood"])
    print("\nAUROC of digits against two real shifts of them, scores of the Glow")
    print(shifts.auroc_table() + "\n", flush=True)
    stages.announce("drawing pictures and writing the report")
    pictures = {
        **of_models.finish(),
        "curves.png": _curves(runs),
        "scores.png": histograms(shifts.scores),
    }
    shifts.write(out / "ood")
    for name, figure in pictures.items():
        figure.savefig(out / name, dpi=130)
    page = out / "report.html"
    page.write_text(_page(table, shifts, pictures, runs, seed=seed))
    record = {name: evaluation.to_dict() for name, evaluation in table.items()}
    (out / "report.json").write_text(json.dumps(record, indent=2))
    print(f"report: {page}")
    return page


def _load_digits() -> dict[str, Dataset]:
    """Returns four parts: the rows that select weights calibrate nothing."""
    parts = {split: load("digits", split=split) for split in ("train", "validation", "test")}
    parts["validation"], parts["held out"] = hold_out(parts["validation"])
    return parts


def _shifts(
    density: Density, background: Density, parts: Mapping[str, Dataset], key: jax.Array
) -> ood.Report:
    """Scores digits against patches of photographs, and against digits that lie on their side."""
    turned = dataclasses.replace(parts["test"].transpose(), name="digits transposed")
    scores: list[ood.Score] = [
        ood.NegativeLogProb(draws=SCORE_DRAWS),
        ood.Typicality(draws=SCORE_DRAWS),
        ood.LikelihoodRatio(background, draws=SCORE_DRAWS),
        ood.InputComplexity(draws=SCORE_DRAWS),
        ood.ComplexityOnly(),
    ]
    return ood.benchmark(
        density,
        inside=parts["test"],
        outside=[load(PHOTOGRAPHS, split="test"), turned],
        scores=scores,
        held_out=parts["held out"],
        train=parts["train"],
        selected_on=parts["validation"],
        key=key,
    )


class _PicturesOfModels:
    """Draws the pictures of a model while the next one trains.

    Training leaves a part of the processor idle, most of all that of the FFJORD.
    """

    def __init__(self, test: Dataset, key: jax.Array) -> None:
        self._test = test
        self._key = key
        self._beside = ThreadPoolExecutor(max_workers=1)
        self._samples: list[Future[jax.Array]] = []
        self._figures: dict[str, Future[Figure]] = {}

    def start(self, name: str, density: Density) -> None:
        """Starts to draw a model: its samples, and what else its family shows."""
        self._samples.append(self._beside.submit(density.sample, self._key, 32))
        for file, draw in _PICTURES.get(name, {}).items():
            self._figures[file] = self._beside.submit(draw, density, self._test, self._key)

    def finish(self) -> dict[str, Figure]:
        """Returns the figures by file name, when all are drawn."""
        self._beside.shutdown()  # waits for the last picture
        samples = [np.asarray(each.result()) for each in self._samples]
        sheet = plot.sheet(
            np.concatenate([self._test.examples[:32], *samples]),
            levels=self._test.levels or 256,
            columns=16,
            title="Two rows each: test images; samples of the Glow, the PixelCNN++, the FFJORD, "
            "the hierarchical VAE",
        )
        return {
            "samples.png": sheet,
            **{file: figure.result() for file, figure in self._figures.items()},
        }


def _completions(density: Density, test: Dataset, key: jax.Array) -> Figure:
    """Draws upper halves of test images, completed three times."""
    assert isinstance(density, PixelCNN)
    height, width, _ = density.event_shape
    images = test.examples[:16]
    is_known = np.arange(height)[:, None, None] < height // 2
    known_pixels = height // 2 * width
    rows = [np.where(is_known, images, 0)]
    for each in jax.random.split(key, 3):
        rows.append(np.asarray(density.inpaint(images, known_pixels, key=each)))
    return plot.sheet(
        np.concatenate([*rows, images]),
        levels=density.levels,
        columns=16,
        title="Upper halves of test images; three completions of each by the PixelCNN++; "
        "the test images",
    )


def _bits(density: Density, test: Dataset, key: jax.Array) -> Figure:
    """Draws how many bits each pixel of test images needs."""
    del key  # the model has the exact number
    assert isinstance(density, PixelCNN)
    nats = np.asarray(density.log_prob_map(test.examples[:32]))
    bits = bits_per_dim(nats, (1,)).sum(-1)
    title = "Bits that each pixel of a test image needs, given those before it"
    return plot.maps(bits, label="bits", columns=16, title=title)


def _reconstructions(density: Density, test: Dataset, key: jax.Array) -> Figure:
    """Draws test images, their exact decoding, and what the coarse latents alone determine."""
    assert isinstance(density, Dequantized)
    images = test.examples[:16]
    y = density.dequantize(jnp.asarray(images), key)
    top, *fine = density.flow.encode(y)
    exact = density.flow.decode((top, *fine))
    means = [jnp.zeros_like(part) for part in fine]
    coarse = density.flow.decode((top, *means))
    error = float(jnp.abs(exact - y).max())
    decoded = [np.asarray(density.quantize(each)) for each in (exact, coarse)]
    return plot.sheet(
        np.concatenate([images, *decoded]),
        levels=test.levels or 256,
        columns=16,
        title=f"Test images; decoded from all latents of the Glow, which changes a pixel by at "
        f"most {error:.1e} of the range;\nfrom the top latents alone, the rest at their mean",
    )


def _levels(density: Density, test: Dataset, key: jax.Array) -> Figure:
    """Draws the images that the VAE expects given all its latents, the upper ones, or none."""
    assert isinstance(density, VAE)
    images = test.examples[:16]

    @jax.jit  # one program, in which the levels share what they have in common
    def reconstructions(density: VAE) -> list[jax.Array]:
        levels = range(density.depth + 1)
        return [density.reconstruct(images, key=key, from_level=level) for level in levels]

    rows = [images, *map(np.asarray, reconstructions(density))]
    expected = np.rint(np.concatenate(rows)).astype(images.dtype)
    return plot.sheet(
        expected,
        levels=density.levels or 256,
        columns=16,
        title="Test images; expected by the hierarchical VAE from all its latents; from the upper "
        "ones; from none",
    )


_PICTURES: dict[str, dict[str, Callable[[Density, Dataset, jax.Array], Figure]]] = {
    GLOW: {"reconstructions.png": _reconstructions},
    PIXELCNN: {"completions.png": _completions, "bits.png": _bits},
    HVAE: {"levels.png": _levels},
}
"""What the page shows of a model beside its samples, by file name."""


def _curves(runs: Mapping[str, Run]) -> Figure:
    """Draws bits/dim of training batches and of the validation part over the steps."""
    lines = {}
    for name, run in runs.items():
        for line, values in run.curves().items():
            lines[f"{name}, {line}"] = values
    return plot.curves(lines, x_label="step", y_label="bits/dim, one draw", title="Training")


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  color: #222 }
table { border-collapse: collapse }
td, th { padding: .3rem .9rem; border-bottom: 1px solid #ccc; text-align: left }
img { max-width: 100% }
figure { margin: 1.5rem 0 }
"""


def _page(
    table: Mapping[str, Evaluation],
    shifts: ood.Report,
    pictures: Mapping[str, Figure],
    runs: Mapping[str, Run],
    *,
    seed: int,
) -> str:
    """Returns the report as one HTML page."""
    best = "; ".join(f"{name}: step {run.best_step} of {run.steps}" for name, run in runs.items())
    held_out = sum(shifts.parts[part]["n"] for part in ("fitted on", "calibrated with"))
    figures = [_figure(name, figure) for name, figure in pictures.items()]
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>likejax demo</title><style>{_STYLE}</style></head>
<body>
<h1>A Glow, a PixelCNN++, an FFJORD and a hierarchical VAE on handwritten digits</h1>
<p>1,797 images of 8x8 pixels with 17 gray levels, split into parts that do not overlap. The weights
are the best on validation ({best}); seed {seed}; the presets themselves train for longer. {DRAWS}
draws for each image where the number is a bound (&le;) or an estimate (~). Errors are standard
errors over the {table[GLOW].n} test images. A uniform density scores log2 17 = 4.087.</p>
{_bits_table(table)}
<h2>In or out of distribution?</h2>
<p>AUROC of separating test digits from other images by the Glow, with 95 % intervals; the other
images are the positive class. The scores were fitted on one half of {held_out} held-out images,
which selected no weights, and calibrated with the other half to a false-positive rate of
{shifts.fpr:g}; the last column is the share of test digits that they flag. The patches overlap and
come from two photographs: the intervals, which take examples as independent, are too narrow for
them. Everything else is in <a href="ood/report.md">ood/report.md</a>.</p>
{_scores_table(shifts)}
{_sources(shifts)}
{"".join(figures)}
</body></html>
"""


def _bits_table(table: Mapping[str, Evaluation]) -> str:
    rows = []
    for name, evaluation in table.items():
        sign = {"exact": "", "bound": "&le; ", "estimate": "~ "}[evaluation.kind.value]
        bits = f"{sign}{evaluation.bits_per_dim:.3f} ± {evaluation.bits_per_dim_error:.3f}"
        rows.append([html.escape(name), bits, evaluation.kind.value])
    return _html_table(["bits/dim", "test", "kind"], rows)


def _scores_table(shifts: ood.Report) -> str:
    inside, *outside = shifts.sets
    heads = ["score", *(html.escape(each.name) for each in outside), "digits flagged"]
    rows = []
    for score in shifts.scores:
        aurocs = [str(score.metrics[each.name]["auroc"]) for each in outside]
        rows.append([html.escape(score.label), *aurocs, f"{score.flagged(inside.name):.3f}"])
    return _html_table(heads, rows)


def _sources(shifts: ood.Report) -> str:
    items = []
    for each in shifts.sets[1:]:
        steps = "; ".join(each.record["provenance"])
        items.append(f"<li>{html.escape(each.name)}: {html.escape(steps)}</li>")
    return f"<ul>{''.join(items)}</ul>"


def _html_table(heads: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    lines = [f"<tr>{head}</tr>"]
    for row in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _figure(name: str, figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(name)}"></figure>'
