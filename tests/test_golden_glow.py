"""Parity with the official Glow code: its weights in, its numbers out, in float64."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from likejax.density import bits_per_dim
from likejax.models.glow import GlowConfig
from likejax.nn.repeat import unstack
from likejax.nn.state import merge, split
from likejax.reference.glow_weights import glow, glow_arrays, official_names
from tests.golden import assert_same_arrays, golden_files, read, weights

FILES = golden_files("glow_*.npz")
pytestmark = pytest.mark.skipif(
    not FILES, reason="no glow_*.npz in LIKEJAX_GOLDEN or ../shared/golden"
)


def groups() -> list:
    return [
        pytest.param((path, group), id=f"{path.stem}-{group}")
        for path in FILES
        for group in sorted({name.split(".")[0] for name in np.load(path).files})
    ]


@dataclasses.dataclass
class Golden:
    """One group of a golden file, the density of its weights, and its data through that density."""

    arrays: dict[str, np.ndarray]
    config: GlowConfig

    def __post_init__(self):
        self.density = unstack(glow(weights(self.arrays), self.config))
        levels = self.config.levels
        self.x = self.arrays["x"] // (256 // levels)
        self.y = (self.x + self.arrays["dequant_u"]) / levels
        self.condition = self.arrays["y"] if self.config.num_classes else None
        self.offset = -self.y[0].size * np.log(levels)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]


@functools.cache
def model(path, group: str) -> Golden:
    arrays = read(path, f"{group}.")
    cfg = {k.removeprefix("cfg_"): int(v) for k, v in arrays.items() if k.startswith("cfg_")}
    permutation = {0: "reverse", 1: "shuffle", 2: "conv1x1_lu" if cfg["lu"] else "conv1x1"}[
        cfg["perm"]
    ]
    return Golden(
        arrays,
        GlowConfig(
            event_shape=(cfg["size"], cfg["size"], 3),
            levels=2 ** cfg["bits"],
            scales=cfg["L"],
            depth=cfg["K"],
            width=cfg["width"],
            coupling="affine" if cfg["coupling"] else "additive",
            permutation=permutation,
            learned_prior=bool(cfg["learntop"]),
            num_classes=cfg["n_y"] if cfg["ycond"] else None,
        ),
    )


@pytest.fixture(params=groups())
def golden(request):
    with jax.enable_x64(True):
        yield model(*request.param)


def test_golden_glow_log_likelihood(golden):
    log_prob = golden.density.density.log_prob(golden.y, condition=golden.condition) + golden.offset
    np.testing.assert_allclose(log_prob, golden["logp"], rtol=0, atol=1e-8)
    bits = bits_per_dim(np.asarray(log_prob), golden.config.event_shape)
    np.testing.assert_allclose(bits, golden["bits_per_dim"], rtol=0, atol=1e-10)


def test_golden_glow_latents(golden):
    top, *factored = golden.density.density.encode(golden.y, condition=golden.condition)
    np.testing.assert_allclose(top, golden["eps.top"], rtol=1e-9, atol=1e-8)
    for level, eps in enumerate(reversed(factored)):
        np.testing.assert_allclose(eps, golden[f"eps.level{level}"], rtol=1e-9, atol=1e-8)


@jax.jit
def forward(bijection, x, condition):
    """One program for all steps of a level."""
    return jax.vmap(lambda x, y: bijection.forward(x, None, y))(x, condition)


def test_golden_glow_every_step(golden):
    """Log-determinants of each map and activations after each step, walked one map at a time."""
    x, factored = golden.y, []
    level = -1
    for bijection in golden.density.density.bijection.bijections:
        name = type(bijection).__name__
        if name == "Squeeze":
            level += 1
        if name == "Repeat":
            for step, block in enumerate(bijection.blocks.blocks):
                for part, kind in zip(
                    block.bijections, ("actnorm", "invconv", "coupling"), strict=True
                ):
                    x, log_det = forward(part, x, None)
                    expected = golden.arrays.get(
                        f"logdet.level{level}.step{step}.{kind}", np.zeros(len(x))
                    )
                    np.testing.assert_allclose(log_det, expected, rtol=1e-9, atol=1e-8)
                np.testing.assert_allclose(
                    x[:1], golden[f"out.level{level}.step{step}"], rtol=1e-9, atol=1e-8
                )
            continue
        if name == "TopPrior":
            np.testing.assert_allclose(x, golden["z.top"], rtol=1e-9, atol=1e-8)
        if name == "Split":
            np.testing.assert_allclose(
                x[..., bijection.kept :], golden[f"z.level{level}"], rtol=1e-9, atol=1e-8
            )
        z, log_det = forward(bijection, x, golden.condition)
        x, *rest = z if isinstance(z, tuple) else (z,)
        for white in rest or ([x] if name == "TopPrior" else []):
            log_normal = (
                -0.5 * np.sum(np.square(white) + np.log(2 * np.pi), axis=(1, 2, 3)) + log_det
            )
            key = "logp.top" if name == "TopPrior" else f"logp.pool{level}"
            np.testing.assert_allclose(log_normal, golden[key], rtol=1e-9, atol=1e-8)
        factored += rest
    assert level == golden.config.scales - 1


def test_golden_glow_gradients(golden):
    structure, params, fixed = split(golden.density.density)

    def mean_bits(params):
        flow = merge(structure, params, fixed)
        log_prob = flow.log_prob(golden.y, condition=golden.condition) + golden.offset
        return jnp.mean(bits_per_dim(log_prob, golden.config.event_shape))

    gradients = jax.jit(jax.grad(mean_bits))(params)
    names = {
        official: ours.removeprefix("density.") for ours, official in official_names(golden.density)
    }
    compared = [
        k.removeprefix("grad_mean_bpd.") for k in golden.arrays if k.startswith("grad_mean_bpd.")
    ]
    assert compared
    for official in compared:
        expected = golden[f"grad_mean_bpd.{official}"]
        ours = np.asarray(gradients[names[official]]).reshape(expected.shape)
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_golden_glow_inverse(golden):
    levels = [golden[f"inv.eps.level{i}"] for i in range(golden.config.scales - 1)]
    latents = (golden["inv.eps.top"], *reversed(levels)) if levels else golden["inv.eps.top"]
    condition = golden["inv.y"] if golden.config.num_classes else None
    y = np.asarray(golden.density.density.decode(latents, condition=condition))
    np.testing.assert_allclose(y - 0.5, golden["inv.x_cont"], rtol=0, atol=1e-10)
    # the official code clips to 255 after spreading the levels over 0..255, so its top level is
    # 255, not 248
    k = np.asarray(golden.density.quantize(jnp.asarray(y)))
    np.testing.assert_array_equal(k, golden["inv.x_uint8"] // (256 // golden.config.levels))


def test_golden_glow_float32(golden):
    """In single precision the likelihood is what the official code gets in single precision."""
    with jax.enable_x64(False):
        weights = {k.removeprefix("w."): v for k, v in golden.arrays.items() if k.startswith("w.")}
        flow = glow(weights, golden.config).density
        log_prob = (
            flow.log_prob(golden.y.astype(np.float32), condition=golden.condition) + golden.offset
        )
        bits = bits_per_dim(np.asarray(log_prob), golden.config.event_shape)
    np.testing.assert_allclose(bits, golden["bits_per_dim_float32run"], rtol=2e-5)
    np.testing.assert_allclose(bits, golden["bits_per_dim"], rtol=2e-5)


# --- forms that the files lack, and checkpoints


def first_model(wanted) -> Golden:
    """The first model of the files whose config is as wanted."""
    models = (model(*param.values[0]) for param in groups())
    found = next((each for each in models if wanted(each.config)), None)
    return found or pytest.skip("no such model in the files")


def with_classifier(golden: Golden) -> dict[str, np.ndarray]:
    """The weights of a conditional model and those of a classifier, in the official shapes."""
    rng = np.random.default_rng(0)
    channels, classes = golden["z.top"].shape[-1], golden.config.num_classes
    shapes = {"W": (channels, classes), "b": (1, classes), "logs": (1, classes)}
    arrays = {f"classifier.{name}": 0.3 * rng.normal(size=shape) for name, shape in shapes.items()}
    return weights(golden.arrays) | arrays


def with_shuffle(golden: Golden) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The weights of a model with random permutations: as official shuffles, and as 1x1
    convolutions.
    """
    rng = np.random.default_rng(1)
    shuffled, convolved = {}, weights(golden.arrays)
    for name, value in weights(golden.arrays).items():
        if not name.endswith("invconv.W"):
            shuffled[name] = value
            continue
        indices = rng.permutation(len(value))
        step = name.removesuffix("invconv.W")
        shuffled[f"{step}shuffle.indices"] = indices.astype(np.int32)
        shuffled[f"{step}shuffle.indices_inverse"] = np.argsort(indices).astype(np.int32)
        convolved[name] = np.eye(len(value))[
            :, indices
        ]  # row j to the columns i with indices[i] = j
    return shuffled, convolved


def test_golden_glow_classifier():
    """The classifier of a conditional model reads the official weights: logits of the mean top
    latent.
    """
    with jax.enable_x64(True):
        golden = first_model(lambda config: config.num_classes)
        arrays = with_classifier(golden)
        flow = glow(arrays, golden.config).density
        got = flow.terms(golden.y, condition=golden.condition).parts["class_log_prob"]
        logits = golden["z.top"].mean((1, 2)) @ arrays["classifier.W"] + arrays["classifier.b"]
        logits = logits * np.exp(3 * arrays["classifier.logs"])
        labels = np.asarray(golden.condition)[:, None]
        expected = np.take_along_axis(logits, labels, 1)[:, 0] - np.log(np.exp(logits).sum(1))
        np.testing.assert_allclose(got, expected, rtol=1e-9)
        some = {name: value for name, value in arrays.items() if name != "classifier.b"}
        with pytest.raises(ValueError, match=r"missing \['classifier.b'\]"):
            glow(some, golden.config)


def test_golden_glow_shuffle():
    """A shuffle is the 1x1 convolution by its permutation matrix, whose log-determinant is 0."""
    with jax.enable_x64(True):
        golden = first_model(lambda config: config.permutation == "conv1x1")
        shuffled, convolved = with_shuffle(golden)
        config = dataclasses.replace(golden.config, permutation="shuffle")
        values = []
        for arrays, each in ((shuffled, config), (convolved, golden.config)):
            flow = glow(arrays, each).density
            values.append(flow.log_prob(golden.y, condition=golden.condition))
        np.testing.assert_allclose(*values, rtol=1e-12)
        name = "0.0.shuffle.indices"
        with pytest.raises(ValueError, match="to be a permutation of 0 to"):
            glow(shuffled | {name: np.zeros_like(shuffled[name])}, config)
        with pytest.raises(ValueError, match="to be the inverse of"):
            glow(shuffled | {name: np.roll(shuffled[name], 1)}, config)


def as_checkpoint(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays as variables of a TensorFlow checkpoint, with what else the official code
    saves.
    """
    checkpoint = {
        "Variable": np.ones(()),
        "Variable_1": np.zeros((1, 1, 1, 12)),
        "global_step": np.zeros(()),
    }
    for name, value in arrays.items():
        variable = "model/" + name.replace(".", "/")
        checkpoint[variable] = value
        if value.dtype.kind == "f" and not variable.endswith(
            ("/P", "/sign_S")
        ):  # others are not trained
            checkpoint[f"{variable}/ExponentialMovingAverage"] = value + 1
            checkpoint[f"{variable}/ExponentialMovingAverage/biased"] = value
            checkpoint[f"{variable}/ExponentialMovingAverage/local_step"] = np.ones(())
    return checkpoint


def test_golden_glow_checkpoint(tmp_path):
    """A small file with the official variable names gives what the arrays themselves give; averages
    on request.
    """
    with jax.enable_x64(True):
        conditional = first_model(lambda config: config.num_classes)
        triangular = first_model(lambda config: config.permutation == "conv1x1_lu")
        shuffled = first_model(lambda config: config.permutation == "conv1x1")
        for arrays, config in (
            (with_classifier(conditional), conditional.config),
            (weights(triangular.arrays), triangular.config),
            (
                with_shuffle(shuffled)[0],
                dataclasses.replace(shuffled.config, permutation="shuffle"),
            ),
        ):
            np.savez(tmp_path / "checkpoint.npz", **as_checkpoint(arrays))
            with np.load(tmp_path / "checkpoint.npz") as checkpoint:
                assert {"model/0/0/actnorm_center/b", "model/0/1/f1/l_1/actnorm_scale/logs"} < set(
                    checkpoint
                )
                assert {"model/pool0/conv/W", "model/1/0/f1/l_last/logs"} < set(checkpoint)
                assert_same_arrays(glow(glow_arrays(checkpoint), config), glow(arrays, config))
                averaged = glow_arrays(checkpoint, weights="averaged")
            assert averaged.keys() == arrays.keys()
            np.testing.assert_array_equal(averaged["0.0.f1.l_1.W"], arrays["0.0.f1.l_1.W"] + 1)


def test_golden_glow_checkpoints_of_something_else():
    with pytest.raises(
        ValueError, match="expected variables under 'model/' in the checkpoint, got conv/W"
    ):
        glow_arrays({"conv/W": np.zeros(3)})
    only = {"model/0/0/invconv/W": np.eye(4)}
    with pytest.raises(ValueError, match="expected moving averages in the checkpoint, got none"):
        glow_arrays(only, weights="averaged")
    with pytest.raises(ValueError, match="got moving averages only"):
        glow_arrays({f"{name}/ExponentialMovingAverage": value for name, value in only.items()})
    with pytest.raises(
        (ValueError, TypeCheckError), match=r"did you mean 'averaged'|parameter 'weights'"
    ):
        glow_arrays(only, weights="average")
