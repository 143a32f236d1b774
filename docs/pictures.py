"""Draws the pictures of the documentation with likejax itself: `python docs/pictures.py`.

Trains the presets that it needs into `runs/pictures`, a run that is finished there is used again,
and writes PNG files into `docs/pictures`.
"""

from __future__ import annotations

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import likejax as lj

HERE = Path(__file__).resolve().parent
OUT = HERE / "pictures"
RUNS = HERE.parent / "runs/pictures"
DIGITS = {
    "Glow": "glow/digits",
    "PixelCNN++": "pixelcnn/digits",
    "FFJORD": "ffjord/digits",
    "hierarchical VAE": "hvae/digits",
}
TOYS = ("moons", "checkerboard", "2spirals", "rings")
FFJORD_STEPS = 2_000
IN_A_ROW = 14
SIDE = 4.0
COLORS = 128


def trained(name: str, *, steps: int | None = None) -> lj.Density:
    """Returns the density of a preset, trained now or by an earlier call."""
    experiment = lj.preset(name)
    if steps is not None:
        experiment = experiment.override({"steps": steps})
    parts = {split: lj.load(experiment.dataset, split=split) for split in ("train", "validation")}
    print(f"{name}: {experiment.steps} steps", flush=True)
    run = lj.fit(
        experiment,
        parts["train"],
        validation=parts["validation"],
        workdir=RUNS / name.replace("/", "-"),
        key=jax.random.key(0),
    )
    return run.density


def write(figure, name: str, *, dpi: int = 110) -> None:
    """Writes a figure as a PNG file of few colors, which keeps it small."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    picture = Image.open(buffer).convert("RGB").quantize(COLORS)
    OUT.mkdir(exist_ok=True)
    picture.save(OUT / name, optimize=True)
    print(f"{OUT / name}: {(OUT / name).stat().st_size // 1000} kB", flush=True)


def unit(images) -> np.ndarray:
    """Returns digits as numbers from 0 to 1."""
    return np.clip(np.asarray(images, np.float64) / 16.0, 0.0, 1.0)


def draw_samples(models: dict[str, lj.Density], test: lj.Dataset) -> None:
    rows = {"test images": unit(test.examples[:IN_A_ROW])}
    for label, density in models.items():
        rows[f"samples: {label}"] = unit(density.sample(jax.random.key(1), IN_A_ROW))
    write(lj.plot.galleries(rows), "samples.png")


def draw_glow(density: lj.models.Dequantized, test: lj.Dataset) -> None:
    images = test.examples[:IN_A_ROW]
    top, *fine = density.encode(images, key=jax.random.key(2))
    means = [jnp.zeros_like(each) for each in fine]
    rows = {
        "test images": unit(images),
        "decoded from all latents": unit(density.decode((top, *fine))),
        "decoded from the top latents, the others at their mean": unit(
            density.decode((top, *means))
        ),
    }
    for temperature in (0.5, 0.8, 1.0):
        drawn = density.sample(jax.random.key(3), IN_A_ROW, temperature=temperature)
        rows[f"samples at temperature {temperature}"] = unit(drawn)
    write(lj.plot.galleries(rows), "glow.png")


def draw_pixelcnn(density: lj.models.PixelCNN, test: lj.Dataset) -> None:
    images = test.examples[:IN_A_ROW]
    is_known = np.arange(8)[:, None, None] < 4
    rows = {
        "test images": unit(images),
        "nats of each pixel, given those before it": np.asarray(density.log_prob_map(images)).sum(
            -1
        ),
        "upper halves": unit(np.where(is_known, images, 0)),
    }
    for number in range(2):
        drawn = density.inpaint(images, 4 * 8, key=jax.random.key(number))
        rows[f"completion {number + 1}"] = unit(drawn)
    write(lj.plot.galleries(rows), "pixelcnn.png")


def draw_vae(density: lj.models.VAE, test: lj.Dataset) -> None:
    images = test.examples[:IN_A_ROW]
    rows = {"test images": unit(images)}
    titles = ("expected, all latents inferred", "the upper latent inferred", "no latent inferred")
    for level, title in enumerate(titles):
        rows[title] = unit(density.reconstruct(images, key=jax.random.key(4), from_level=level))
    rows["samples"] = unit(density.sample(jax.random.key(5), IN_A_ROW))
    write(lj.plot.galleries(rows), "vae.png")


def draw_baselines(train: lj.Dataset, test: lj.Dataset) -> None:
    models = {
        "per-pixel histogram": lj.models.PixelHistogram.fit(train),
        "full-covariance Gaussian": lj.models.FullGaussian.fit(train),
    }
    rows = {"test images": unit(test.examples[:IN_A_ROW])}
    for label, density in models.items():
        rows[f"samples: {label}"] = unit(density.sample(jax.random.key(6), IN_A_ROW))
    write(lj.plot.galleries(rows), "baselines.png")


def on_a_grid(density: lj.Density, side: float, size: int = 160) -> np.ndarray:
    """Returns the values of a density in the plane, first axis upwards."""
    ticks = np.linspace(-side, side, size, dtype=np.float32)
    points = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    nats = lj.evaluation.log_prob_in_chunks(density, points, batch_size=3_200)
    return np.exp(np.asarray(nats)).reshape(size, size)


def draw_planes() -> None:
    panels = {}
    for name in TOYS:
        points = lj.load(name, split="test").examples
        density = trained(f"nsf/{name}")
        panels[name] = {"data": points[:4_000], "NSF": on_a_grid(density, SIDE)}
    write(lj.plot.plane(panels, side=SIDE), "nsf.png")


def draw_vector_glow() -> None:
    density = trained("vector_glow/moons")
    points = lj.load("moons", split="test").examples
    drawn = np.asarray(density.sample(jax.random.key(7), 4_000))
    panels = {
        "data": {"moons": points[:4_000]},
        "density": {"moons": on_a_grid(density, SIDE)},
        "samples": {"moons": drawn},
    }
    write(lj.plot.plane(panels, side=SIDE), "vector_glow.png")


def draw_ffjord() -> None:
    density = trained("ffjord/moons", steps=FFJORD_STEPS)
    points = lj.load("moons", split="test").examples
    drawn = np.asarray(density.sample(jax.random.key(8), 4_000))
    panels = {
        "data": {"moons": points[:4_000]},
        "density": {"moons": on_a_grid(density, SIDE, size=100)},
        "samples": {"moons": drawn},
    }
    write(lj.plot.plane(panels, side=SIDE), "ffjord.png")


def draw_diffusion() -> None:
    density = trained("vdm/moons")
    points = lj.load("moons", split="test").examples
    solver = lj.bijections.Solver(rtol=1e-3, atol=1e-3)
    flow = density.as_flow(trace=lj.bijections.Trace(), solver=solver)
    drawn = np.asarray(density.sample(jax.random.key(9), 4_000))
    panels = {
        "data": {"moons": points[:4_000]},
        "density of the flow": {"moons": on_a_grid(flow, SIDE, size=100)},
        "samples": {"moons": drawn},
    }
    write(lj.plot.plane(panels, side=SIDE), "diffusion.png")


def main() -> None:
    train, test = (lj.load("digits", split=split) for split in ("train", "test"))
    draw_baselines(train, test)
    draw_vector_glow()
    draw_planes()
    models = {label: trained(name) for label, name in DIGITS.items()}
    draw_glow(models["Glow"], test)
    draw_pixelcnn(models["PixelCNN++"], test)
    draw_vae(models["hierarchical VAE"], test)
    draw_samples(models, test)
    draw_ffjord()
    draw_diffusion()


if __name__ == "__main__":
    main()
