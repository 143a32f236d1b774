"""Parity with the official hierarchical VAE (hvae-oodd): its weights and noise in, its numbers out,
in float64."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import likejax as lj
from likejax.density import combine_draws
from likejax.distributions import LogisticMixture
from likejax.models.vae.inference import Noise
from likejax.models.vae.network import Moments
from likejax.nn.state import merge, split
from likejax.reference.hvae_weights import hvae, hvae_arrays, hvae_config, official_names
from likejax.reference.pixelcnn_weights import parameter_order
from tests.golden import all_arrays, assert_same_arrays, golden_files, groups, weights
from tests.official_hvae import OfficialHVAE

FILES = golden_files("hvae_*.npz")
pytestmark = pytest.mark.skipif(
    not FILES, reason="no hvae_*.npz in LIKEJAX_GOLDEN or ../shared/golden"
)

LIKELIHOODS = {
    "BernoulliLikelihoodDense": "bernoulli",
    "BernoulliLikelihoodConv2d": "bernoulli",
    "GaussianLikelihoodDense": "gaussian",
    "GaussianLikelihoodConv2d": "gaussian",
    "DiscretizedLogisticMixLikelihoodConv2d": "logistic_mixture",
    "DiscretizedLogisticLikelihoodConv2d": "logistic",
}
ACTIVATION_NAMES = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "Swish": "swish",
    "ELU": "elu",
    "SELU": "selu",
    "SoftPlus": "softplus",
    "Tanh": "tanh",
}
LEVELS = {"bernoulli": 2, "gaussian": None}
TOLERANCE = {"rtol": 1e-9, "atol": 1e-7}


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def config_of(golden) -> lj.models.VAEConfig:
    """Every size and form from the file: a row for each block, names of latents, activation and
    likelihood."""
    latents = zip(golden["cfg_latent_blocks"], golden["cfg_latent_features"], strict=True)
    stages = []
    for i, (kind, features) in enumerate(latents):
        channels, kernels, strides, gates = map(
            tuple, golden[f"cfg_det.stage{i}"].astype(int).T.tolist()
        )
        stages.append(
            lj.models.StageConfig(
                channels=channels,
                kernel=kernels,
                strides=strides,
                latent=int(features),
                dense=str(kind) == "GaussianDense",
                gated=tuple(map(bool, gates)),
            )
        )
    channels, height, width = golden["x"].shape[1:]
    official = str(golden["cfg_likelihood"])
    likelihood = LIKELIHOODS[official]
    outputs = golden["w.lik.b"].size
    return lj.models.VAEConfig(
        event_shape=(height, width, channels),
        levels=LEVELS.get(likelihood, 256),
        stages=tuple(stages),
        likelihood=likelihood,
        mixtures=outputs // LogisticMixture.size(channels, 1)
        if likelihood == "logistic_mixture"
        else 1,
        likelihood_form="reference",
        skips="as_released",
        activation=ACTIVATION_NAMES[str(golden["cfg_activation"])],
        flatten=official.endswith("Dense"),
    )


def density_of(golden) -> lj.models.VAE:
    return hvae(weights(golden), config_of(golden))


def last(array: np.ndarray, batch_axes: int) -> np.ndarray:
    """Channels last, of maps; vectors as they are."""
    return np.moveaxis(array, batch_axes, -1) if array.ndim == batch_axes + 3 else array


def examples(golden, density) -> jax.Array:
    x = last(golden["x"], 1)
    if density.levels is None:
        return jnp.asarray(x)
    return jnp.asarray(np.rint(x * (density.levels - 1)).astype(np.uint8))


def noise_of(golden, density, samples=slice(None)) -> Noise:
    """(S, B, latent) each."""
    parts = []
    for name in ("eps_q", "eps_p"):
        eps = [golden[f"{name}.z{i + 1}"][samples] for i in range(density.depth)]
        parts.append(tuple(jnp.asarray(last(e, 2)) for e in eps))
    return Noise(*parts)


@jax.jit
def first_pass(density, x, noise):
    passed = jax.vmap(lambda x, noise: density.run(x, noise))(
        x, jax.tree.map(lambda eps: eps[0], noise)
    )
    return passed, density.weights(passed, x)


@functools.partial(jax.jit, static_argnums=3)
def all_weights(density, x, noise, replacement):
    """(S, L, B): of every draw and every number of lowest latents from their priors."""

    def one(x, noise):
        return density.weights_above(x, noise, tuple(range(density.depth)), replacement)

    return jax.vmap(lambda noise: jax.vmap(one, out_axes=1)(x, noise))(noise)


@pytest.mark.parametrize("golden", groups(FILES))
def test_pass(golden):
    """Moments, latents, likelihood and divergences of one draw."""
    density = density_of(golden)
    x = examples(golden, density)
    passed, log_weight = first_pass(density, x, noise_of(golden, density))
    for i in range(density.depth):
        name = f"z{i + 1}"
        np.testing.assert_allclose(passed.latents[i], last(golden[name], 1), **TOLERANCE)
        for ours, theirs in ((passed.posteriors[i], "q"), (passed.priors[i], "p")):
            np.testing.assert_allclose(
                ours.mean, last(golden[f"{theirs}_mean.{name}"], 1), **TOLERANCE
            )
            np.testing.assert_allclose(
                ours.std, last(golden[f"{theirs}_std.{name}"], 1), **TOLERANCE
            )
        kl = passed.kl[i].reshape(len(x), -1).sum(1)
        np.testing.assert_allclose(kl, golden[f"kl.{name}"], **TOLERANCE)
    kls = sum(golden[f"kl.z{i + 1}"] for i in range(density.depth))
    np.testing.assert_allclose(log_weight + kls, golden["lik"], **TOLERANCE)
    np.testing.assert_allclose(log_weight, golden["elbo"], **TOLERANCE)
    check_parameters(golden, density, passed.outputs, "lik_param")


def check_parameters(golden, density, outputs, prefix: str) -> None:
    name = density.config.likelihood
    if name == "bernoulli":
        np.testing.assert_allclose(outputs, last(golden[f"{prefix}.logits"], 1), **TOLERANCE)
    elif name == "logistic":
        mean, log_scale = density.likelihood.parameters(outputs)
        np.testing.assert_allclose(mean, last(golden[f"{prefix}.mean"], 1), **TOLERANCE)
        np.testing.assert_allclose(log_scale, last(golden[f"{prefix}.logscale"], 1), **TOLERANCE)
    elif name == "gaussian":
        mean, std = Moments.of(outputs)
        np.testing.assert_allclose(mean, last(golden[f"{prefix}.loc"], 1), **TOLERANCE)
        np.testing.assert_allclose(std, last(golden[f"{prefix}.scale"], 1), **TOLERANCE)
    else:
        theirs = golden[f"{prefix}.all_params"]
        theirs = theirs if theirs.shape[-1] == outputs.shape[-1] else last(theirs, 1)
        order = parameter_order(density.event_shape[2], density.config.mixtures)
        np.testing.assert_allclose(outputs, theirs[..., order], **TOLERANCE)


@pytest.mark.parametrize("golden", groups(FILES))
def test_bounds(golden):
    """Log weights of every draw, importance-weighted bounds, L^{>k} and ratios by samples and by
    means."""
    density = density_of(golden)
    x, noise = examples(golden, density), noise_of(golden, density)
    for replacement, name in (("sample", "sample"), ("mean", "mode")):
        each = all_weights(density, x, noise, replacement)
        log_weights = each[:, 0]
        np.testing.assert_allclose(log_weights, golden["elbo_samples"], **TOLERANCE)
        bound = combine_draws(log_weights, lj.Kind.BOUND)
        np.testing.assert_allclose(bound, golden["iw_bound_exact"], **TOLERANCE)
        np.testing.assert_allclose(their_bound(log_weights), golden["iw_bound"], **TOLERANCE)
        for k in range(density.depth):
            above = each[:, k]
            np.testing.assert_allclose(above, golden[f"Lgtk_{name}.samples"][k], **TOLERANCE)
            np.testing.assert_allclose(
                their_bound(above), golden[f"Lgtk_{name}.iw_bound"][k], **TOLERANCE
            )
            np.testing.assert_allclose(
                log_weights[0] - above[0], golden[f"LLRgtk_{name}.s1"][k], **TOLERANCE
            )
            ratio = their_bound(log_weights) - their_bound(above)
            np.testing.assert_allclose(ratio, golden[f"LLRgtk_{name}.iw"][k], **TOLERANCE)


def their_bound(log_weights):
    """With 1e-8 inside the logarithm, as the official code has it."""
    log_weights = np.asarray(log_weights)
    top = log_weights.max(0)
    return np.log(np.exp(log_weights - top).mean(0) + 1e-8) + top


@pytest.mark.parametrize("golden", groups(FILES))
def test_gradient(golden):
    """Of the mean negative ELBO; the official gradients go through the importer, whose reordering
    is linear."""
    density = density_of(golden)
    x, noise = (
        examples(golden, density),
        jax.tree.map(lambda eps: eps[0], noise_of(golden, density)),
    )
    structure, params, fixed = split(density)

    def loss(params):
        density = merge(structure, params, fixed)
        return -density.weights(density.run(x, noise), x).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    prefix = "grad_mean_neg_elbo.w."
    theirs = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    zeros = {name: np.zeros_like(array) for name, array in weights(golden).items()}
    _, expected, _ = split(hvae(zeros | theirs, density.config))
    ours_of = {official: ours for ours, official in official_names(density)}
    parts = {"V": "direction", "g": "scale", "b": "bias"}
    assert len(theirs) >= 5
    for name in theirs:
        layer, part = name.rsplit(".", 1)
        ours = f"{ours_of[layer]}.{parts[part]}"
        np.testing.assert_allclose(gradient[ours], expected[ours], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("golden", groups(FILES))
def test_training_loss(golden):
    """With the official free nats: a floor on every element of the sampled divergence, shared by
    the channels only."""
    density = density_of(golden)
    x, noise = (
        examples(golden, density),
        jax.tree.map(lambda eps: eps[0], noise_of(golden, density)),
    )
    objective = lj.ELBO(
        beta=float(golden["cfg_beta"]),
        free_nats=float(golden["cfg_free_nats"]),
        free_nats_per="element",
        kl="sampled",
    )
    terms = jax.jit(lambda density, x, noise: density.terms_with(x, noise))(density, x, noise)
    loss = objective.loss(terms, jnp.zeros((), jnp.int32))
    np.testing.assert_allclose(loss, golden["train_loss"].mean(), **TOLERANCE)


@pytest.mark.parametrize("golden", groups(FILES))
def test_ancestral_samples(golden):
    density = density_of(golden)
    eps = tuple(jnp.asarray(last(golden[f"prior.eps.z{i + 1}"], 1)) for i in range(density.depth))
    passed = jax.jit(lambda density, noise: density.prior_pass(noise))(density, Noise(eps, eps))
    for i in range(density.depth):
        np.testing.assert_allclose(
            passed.latents[i], last(golden[f"prior.z{i + 1}"], 1), **TOLERANCE
        )
    check_parameters(golden, density, passed.outputs, "prior.lik_param")


# --- other forms, against the same text in plain numpy

FORMS = {
    # kernels of other sizes in one stage, even ones too; a gate in some blocks; a skip that shrinks
    # by four
    "shrinking": {
        "x": (1, 8, 8),
        "rows": [
            [[3, 5, 2, 0], [4, 3, 1, 1]],
            [[4, 4, 1, 1], [4, 3, 1, 0]],
            [[4, 2, 2, 0], [3, 1, 2, 0], [3, 4, 1, 1]],
        ],
        "latents": [("GaussianConv2d", 2), ("GaussianDense", 3), ("GaussianDense", 2)],
        "activation": "LeakyReLU",
    },
    # a skip that grows by four with a kernel below that, and a kernel below the stride; a map as
    # the top latent
    "growing": {
        "x": (2, 16, 16),
        "rows": [
            [[3, 3, 1, 0], [4, 1, 2, 0]],
            [[4, 3, 1, 0], [4, 3, 2, 1], [3, 5, 2, 0]],
            [[3, 3, 1, 0], [3, 1, 1, 0], [2, 3, 1, 0]],
        ],
        "latents": [("GaussianConv2d", 2), ("GaussianDense", 3), ("GaussianConv2d", 2)],
        "activation": "ELU",
    },
}


def official_of(golden) -> OfficialHVAE:
    """The plain model of a file's form and weights."""
    stages = range(len(golden["cfg_latent_blocks"]))
    kernel = golden["w.lik.V"].shape[-1] if golden["w.lik.V"].ndim == 4 else None
    activated = not LIKELIHOODS[str(golden["cfg_likelihood"])].startswith("logistic")
    return OfficialHVAE(
        rows=[golden[f"cfg_det.stage{i}"] for i in stages],
        latent_blocks=list(map(str, golden["cfg_latent_blocks"])),
        latent_features=[int(features) for features in golden["cfg_latent_features"]],
        activation=str(golden["cfg_activation"]),
        likelihood=(golden["w.lik.b"].size, kernel, activated),
        weights=weights(golden),
    )


def of_form(form) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A file's arrays for a form, with random weights, and what the plain model makes of two
    images."""
    rng = np.random.default_rng(0)
    rows, latents = [np.array(each) for each in form["rows"]], form["latents"]
    model = OfficialHVAE(
        rows=rows,
        latent_blocks=[kind for kind, _ in latents],
        latent_features=[features for _, features in latents],
        activation=form["activation"],
        likelihood=(form["x"][0], 3, True),
        rng=rng,
    )
    x = rng.integers(0, 2, (2, *form["x"])).astype(float)
    shapes, size = [], form["x"][1:]
    for stage_rows, (kind, features) in zip(rows, latents, strict=True):
        factor = int(np.prod(stage_rows[:, 2]))
        size = tuple(side // factor for side in size)
        shapes.append((features, *size) if kind == "GaussianConv2d" else (features,))
    eps = [rng.normal(size=(len(x), *shape)) for shape in shapes]
    each = [model.run(image, [part[i] for part in eps]) for i, image in enumerate(x)]
    golden = {f"cfg_det.stage{i}": stage_rows for i, stage_rows in enumerate(rows)}
    golden |= {
        "cfg_latent_blocks": np.array([kind for kind, _ in latents]),
        "cfg_latent_features": np.array([features for _, features in latents]),
        "cfg_likelihood": np.array("BernoulliLikelihoodConv2d"),
        "cfg_activation": np.array(form["activation"]),
        "x": x,
    }
    golden |= {f"w.{name}": array for name, array in model.weights.items()}
    top = (2 * shapes[-1][0], *shapes[-1][1:])
    golden[f"w.stage{len(rows) - 1}.prior_logits"] = np.zeros(top)
    golden |= {f"eps_q.z{i + 1}": part[None] for i, part in enumerate(eps)}
    golden |= {f"eps_p.z{i + 1}": part[None] for i, part in enumerate(eps)}
    return golden, {name: np.stack([one[name] for one in each]) for name in each[0]}


@pytest.mark.parametrize("golden", groups(FILES))
def test_the_plain_model_is_the_official_one(golden):
    """Moments and parameters of the files, by the plain model: what is compared with it below is
    the official code."""
    model = official_of(golden)
    eps = [golden[f"eps_q.z{i + 1}"][0] for i in range(len(model.rows))]
    for i, x in enumerate(golden["x"]):
        flat = model.run(x, [part[i] for part in eps])
        for name in (name for name in flat if name != "outputs"):
            np.testing.assert_allclose(flat[name], golden[name][i], **TOLERANCE)
        outputs = flat["outputs"]
        if "lik_param.logits" in golden:
            theirs = golden["lik_param.logits"][i]
            np.testing.assert_allclose(outputs.reshape(theirs.shape), theirs, **TOLERANCE)
        if "lik_param.mean" in golden:
            np.testing.assert_allclose(
                np.split(outputs, 2)[0] + 0.5, golden["lik_param.mean"][i], **TOLERANCE
            )


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_other_forms(form):
    """Kernels, strides and gates of each block's own: which layers there are, and what comes
    out."""
    golden, expected = of_form(form)
    density = density_of(golden)
    passed, _ = first_pass(density, examples(golden, density), noise_of(golden, density))
    for i in range(density.depth):
        name = f"z{i + 1}"
        np.testing.assert_allclose(passed.latents[i], last(expected[name], 1), **TOLERANCE)
        np.testing.assert_allclose(
            passed.posteriors[i].std, last(expected[f"q_std.{name}"], 1), **TOLERANCE
        )
        if i < density.depth - 1:
            np.testing.assert_allclose(
                passed.priors[i].mean, last(expected[f"p_mean.{name}"], 1), **TOLERANCE
            )
    np.testing.assert_allclose(passed.outputs, last(expected["outputs"], 1), **TOLERANCE)


def test_stages_that_the_released_code_cannot_run():
    """A skip that is larger than the map from above, for which its layer was made."""
    stages = (
        lj.models.StageConfig(channels=(4, 4, 4), strides=(2, 2, 1), latent=2, dense=False),
        lj.models.StageConfig(channels=(4,), strides=(1,), latent=2),
    )
    config = lj.models.VAEConfig(event_shape=(8, 8, 1), stages=stages, skips="as_released")
    with pytest.raises(ValueError, match="the released code cannot run these stages either"):
        lj.build(config, key=0)


# --- checkpoints


def as_checkpoint(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays under the names of a ``state_dict`` of the official code, with what else is
    in one."""
    parts = {"V": "weight_v", "g": "weight_g", "b": "bias"}
    whole = {"latent_q": "stochastic.in_transform_q", "latent_p": "stochastic.in_transform_p"}
    whole |= {"proj_q": "q_projection.transform", "proj_p": "p_projection.transform"}
    state = {}
    for name, value in arrays.items():
        *words, part = name.split(".")
        stage = words[0].removeprefix("stage")
        if part == "prior_logits":
            state[f"stages.{stage}.stochastic.prior_logits"] = value
            state[f"stages.{stage}.stochastic.std_activation_inverse.beta"] = np.array([0.7])
            state[f"stages.{stage}.stochastic.std_activation_inverse.threshold"] = np.array([20.0])
            continue
        kind = "conv" if arrays[f"{'.'.join(words)}.V"].ndim == 4 else "linear"
        if words == ["lik"]:
            layer = "likelihood.parameter_net"
        elif len(words) == 2:
            layer = f"stages.{stage}.{whole[words[1]]}"
        else:
            convolution = {"aux": "aux_op"}.get(words[3], words[3])
            block = words[2].removeprefix("block")
            layer = f"stages.{stage}.{words[1]}_deterministic.layers.{block}.{convolution}"
        state[f"{layer}.{kind}.{parts[part]}"] = value
        state[f"{layer}.initialized"] = np.array(True)
    return state


def test_checkpoint(tmp_path):
    """A small file with the official names gives the arrays, the unread projection too; unknown
    names are refused."""
    models = (param.values[0] for param in groups(FILES))
    golden = next(
        (each for each in models if each["cfg_latent_blocks"][-1] == "GaussianDense"), None
    )
    golden = golden or pytest.skip("no model with a dense top latent in the files")
    arrays = weights(golden)
    top = len(golden["cfg_latent_blocks"]) - 1
    features, size = (
        golden[f"w.stage{top}.proj_p.V"].shape[1],
        golden[f"w.stage{top}.proj_p.V"].shape[0],
    )
    projection = {
        "V": np.arange(features * size).reshape(size, features) / 7,
        "g": np.ones((size, 1)),
    }
    projection["b"] = np.arange(size) / 3
    arrays |= {f"stage{top}.proj_q.{part}": value for part, value in projection.items()}
    np.savez(
        tmp_path / "state_dict.npz",
        **{f"module.{name}": value for name, value in as_checkpoint(arrays).items()},
    )
    with np.load(tmp_path / "state_dict.npz") as saved:
        read = hvae_arrays(saved)
    assert read.keys() == arrays.keys()
    density = hvae(read, config_of(golden))
    direct = hvae(weights(golden), config_of(golden))
    unread = {name for name in all_arrays(direct) if ".unread." in name}
    assert len(unread) == 3
    assert_same_arrays(density, direct, but=unread)
    kept = all_arrays(density)[f"inference.{top}.unread.direction"]
    np.testing.assert_array_equal(np.sort(kept, axis=None), np.sort(projection["V"], axis=None))
    with pytest.raises(ValueError, match="merge"):
        hvae_arrays(as_checkpoint(arrays) | {"stages.0.merge.conv1.conv.weight_v": np.zeros(3)})


@pytest.mark.parametrize("golden", groups(FILES))
def test_config_of_a_checkpoint(golden):
    """The arguments that the official code saves beside its weights give the config of the file."""
    config = config_of(golden)
    if config.flatten:
        pytest.skip("the official command line has convolutions only")
    stages = range(len(config.stages))
    names = ("out_channels", "kernel_size", "stride", "gated")
    blocks = [
        [dict(zip(names, row, strict=True)) for row in golden[f"cfg_det.stage{i}"].tolist()]
        for i in stages
    ]
    kinds = zip(golden["cfg_latent_blocks"], golden["cfg_latent_features"], strict=True)
    latents = [
        {"block": str(kind), "latent_features": int(features), "weightnorm": True}
        for kind, features in kinds
    ]
    for block in (block for stage in blocks for block in stage):
        block |= {"block": "ResBlockConv2d", "weightnorm": True, "gated": bool(block["gated"])}
    kwargs = {
        "input_shape": golden["x"].shape[1:],
        "config_deterministic": blocks,
        "config_stochastic": latents,
        "likelihood_module": str(golden["cfg_likelihood"]),
        "activation": str(golden["cfg_activation"]),
        "padded_shape": None,
        "skip_stochastic": True,
    }
    made = hvae_config({"kwargs": kwargs})
    assert dataclasses.replace(made, mixtures=config.mixtures) == config
    assert made.mixtures in (config.mixtures, 10)
    with pytest.raises(ValueError, match="expected activation to be ReLU or"):
        hvae_config(kwargs | {"activation": "PSwish"})
    with pytest.raises(ValueError, match="expected a latent with kernel_size=3, got 5"):
        hvae_config(
            kwargs | {"config_stochastic": [latent | {"kernel_size": 5} for latent in latents]}
        )
    with pytest.raises(ValueError, match="without padding"):
        hvae_config(kwargs | {"padded_shape": (32, 32)})
