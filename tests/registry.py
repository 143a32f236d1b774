"""One line adds a map or a density to every property test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import likejax as lj
from likejax import bijections as bj
from likejax.models.ffjord.dynamics import Dynamics, ImageDynamics
from likejax.nn.repeat import repeat


def perturbed(module, seed: int = 7, scale: float = 0.3):
    """The module with noise on every parameter, so that nothing is zero or the identity by
    initialization. The host adds it: JAX would compile the sum for every shape."""
    leaves, treedef = jax.tree.flatten(module)
    variables = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, nnx.Variable))
    rng = np.random.default_rng(seed)
    noisy = [
        jnp.asarray(np.asarray(leaf) + scale * rng.normal(size=leaf.shape).astype(leaf.dtype))
        if isinstance(variable, nnx.Param)
        else leaf
        for leaf, variable in zip(leaves, variables, strict=True)
    ]
    return jax.tree.unflatten(treedef, noisy)


def rngs() -> nnx.Rngs:
    return nnx.Rngs(0)


@dataclass(frozen=True)
class BijectionCase:
    make: Callable[[], bj.Bijection]
    shape: tuple[int, ...]
    unit_interval: bool = False
    condition: int | None = None
    floats: bool = False
    bound: float | None = None
    """Half of the side of the box of a spline, at whose ends and beyond it is tested too."""

    @property
    def label(self) -> jax.Array | None:
        if self.floats:
            return jnp.asarray([[0.3, -1.2, 0.5]]) + jnp.zeros(())  # of float64 where that is on
        return None if self.condition is None else jnp.asarray(self.condition)


def _coupling(kind, channels, **options):
    return lambda: kind(channels, width=6, rngs=rngs(), **options)


def _chain_with_splits() -> bj.Bijection:
    return bj.Chain(
        [
            bj.Affine(0.5),
            bj.Squeeze(),
            bj.ActNorm(4),
            bj.Split(4),
            bj.Squeeze(),
            bj.Conv1x1(8, rngs=rngs()),
            bj.Split(8),
            bj.TopPrior(4),
        ]
    )


def _repeat() -> bj.Bijection:
    def step(rngs: nnx.Rngs) -> bj.Bijection:
        return bj.Chain(
            [bj.ActNorm(3), bj.Conv1x1LU(3, rngs=rngs), bj.AffineCoupling(3, width=5, rngs=rngs)]
        )

    return bj.Repeat(repeat(step, 3, rngs=rngs()))


SPLINE = bj.RationalQuadratic(bins=3)


def _features(kind, scalar: bj.ScalarMap = SPLINE, **options):
    return lambda: kind(3, scalar, width=5, blocks=1, rngs=rngs(), **options)


def _standardize() -> bj.Bijection:
    batch = jnp.array([[0.0, -2.0, 5.0], [1.0, 2.0, 5.5]])
    return bj.Standardize(3).initialize(batch, jax.random.key(0))


def _ode(channels: int = 3, kind=Dynamics, **options) -> bj.Bijection:
    field = kind(channels, (5,), rngs=rngs(), **options)
    return bj.ODE(field, end_time=0.5, solver=lj.bijections.Solver("rk4", steps=200))


VECTOR = {"kernel_sizes": (1, 1, 1)}
BIJECTIONS: dict[str, BijectionCase] = {
    "actnorm image": BijectionCase(lambda: bj.ActNorm(3), (2, 3, 3)),
    "actnorm one channel": BijectionCase(lambda: bj.ActNorm(1), (3, 2, 1)),
    "actnorm vector": BijectionCase(lambda: bj.ActNorm(5), (5,)),
    "conv1x1 image": BijectionCase(lambda: bj.Conv1x1(3, rngs=rngs()), (2, 2, 3)),
    "conv1x1 one channel": BijectionCase(lambda: bj.Conv1x1(1, rngs=rngs()), (2, 2, 1)),
    "conv1x1 lu": BijectionCase(lambda: bj.Conv1x1LU(4, rngs=rngs()), (3, 1, 4)),
    "conv1x1 lu vector": BijectionCase(lambda: bj.Conv1x1LU(5, rngs=rngs()), (5,)),
    "permutation": BijectionCase(lambda: bj.Permutation(jnp.array([2, 0, 1])), (2, 2, 3)),
    "affine coupling even": BijectionCase(_coupling(bj.AffineCoupling, 4), (3, 3, 4)),
    "affine coupling odd": BijectionCase(_coupling(bj.AffineCoupling, 3), (2, 3, 3)),
    "affine coupling vector": BijectionCase(_coupling(bj.AffineCoupling, 5, **VECTOR), (5,)),
    "additive coupling even": BijectionCase(_coupling(bj.AdditiveCoupling, 2), (3, 3, 2)),
    "additive coupling odd": BijectionCase(_coupling(bj.AdditiveCoupling, 3), (1, 2, 3)),
    "squeeze one channel": BijectionCase(bj.Squeeze, (4, 2, 1)),
    "squeeze three channels": BijectionCase(bj.Squeeze, (2, 4, 3)),
    "split even": BijectionCase(lambda: bj.Split(4), (2, 3, 4)),
    "split odd": BijectionCase(lambda: bj.Split(3), (2, 2, 3)),
    "split vector": BijectionCase(lambda: bj.Split(5, kernel_size=1), (5,)),
    "top prior": BijectionCase(lambda: bj.TopPrior(2), (3, 3, 2)),
    "top prior conditional": BijectionCase(
        lambda: bj.TopPrior(2, num_classes=4), (3, 2, 2), condition=1
    ),
    "top prior, floats": BijectionCase(
        lambda: bj.TopPrior(2, condition_size=3), (3, 2, 2), floats=True
    ),
    "affine coupling, floats": BijectionCase(
        _coupling(bj.AffineCoupling, 5, condition_size=3, **VECTOR), (5,), floats=True
    ),
    "additive coupling, label": BijectionCase(
        _coupling(bj.AdditiveCoupling, 2, condition_size=3), (3, 3, 2), condition=1
    ),
    "feature coupling, floats": BijectionCase(
        _features(bj.FeatureCoupling, condition_size=3), (3,), floats=True, bound=3.0
    ),
    "feature coupling affine": BijectionCase(
        _features(bj.FeatureCoupling, bj.AffineScalar("exp"), first=1, kept_map=bj.AffineScalar()),
        (3,),
    ),
    "elementwise": BijectionCase(lambda: bj.Elementwise(3, SPLINE, rngs=rngs()), (3,), bound=3.0),
    "autoregressive, floats": BijectionCase(
        _features(bj.Autoregressive, condition_size=3), (3,), floats=True, bound=3.0
    ),
    "autoregressive, random order": BijectionCase(
        _features(bj.Autoregressive, bj.AffineScalar(), random_order=True), (3,)
    ),
    "inverse autoregressive": BijectionCase(
        lambda: bj.Inverse(_features(bj.Autoregressive, bj.AffineScalar("exp"))()), (3,)
    ),
    "lu linear": BijectionCase(lambda: bj.LULinear(3), (3,)),
    "standardize": BijectionCase(_standardize, (3,)),
    "affine": BijectionCase(
        lambda: bj.Affine(jnp.array([1.0, -2.0, 0.0]), jnp.array([0.5, -3.0, 2.0])), (2, 2, 3)
    ),
    "logit": BijectionCase(lambda: bj.Logit(0.05), (2, 2, 1), unit_interval=True),
    "logit tiny alpha": BijectionCase(lambda: bj.Logit(1e-6), (5,), unit_interval=True),
    "chain with splits": BijectionCase(_chain_with_splits, (4, 4, 1)),
    "repeat": BijectionCase(_repeat, (2, 2, 3)),
    "ode": BijectionCase(lambda: _ode(), (3,)),
    "ode, floats": BijectionCase(lambda: _ode(condition_size=3), (3,), floats=True),
    "ode image, label": BijectionCase(
        lambda: _ode(channels=2, kind=ImageDynamics, time="concat", condition_size=3),
        (3, 2, 2),
        condition=1,
    ),
    "ode image": BijectionCase(
        lambda: _ode(channels=2, kind=ImageDynamics, time="concat", activation="swish"), (3, 2, 2)
    ),
    "factor out": BijectionCase(lambda: bj.FactorOut(3), (2, 2, 3)),
    "batch norm": BijectionCase(
        lambda: bj.BatchNorm(
            jnp.ones(3), jnp.full(3, 2.0), jnp.zeros(3), jnp.array([0.0, 1.0, 2.0])
        ),
        (3,),
    ),
    "inverse": BijectionCase(
        lambda: bj.Inverse(bj.AffineCoupling(3, width=5, rngs=rngs())), (2, 2, 3)
    ),
}


@dataclass(frozen=True)
class DensityCase:
    make: Callable[[], lj.Density]
    classes: int = 0
    condition_shape: tuple[int, ...] | None = None
    spreads_draws: bool = False
    """Whether training spreads random numbers over the batch, and so draws others."""

    def conditions(self, n: int) -> np.ndarray | None:
        """Labels or floats of ``n`` examples, the first the same for every ``n``."""
        if self.classes:
            return np.arange(n) % self.classes
        if self.condition_shape is None:
            return None
        draws = np.random.default_rng(5).normal(size=(16, *self.condition_shape))
        return draws[:n].astype(np.float32)


def _glow(**options) -> lj.Density:
    sizes = {"event_shape": (8, 8, 1), "levels": 17, "scales": 2, "depth": 2, "width": 8} | options
    return lj.build(lj.models.GlowConfig(**sizes), key=0)


def _pixelcnn(**options) -> lj.Density:
    sizes = {
        "event_shape": (4, 4, 1),
        "levels": 17,
        "filters": 4,
        "blocks": 1,
        "resolutions": 2,
        "mixtures": 2,
    }
    return lj.build(lj.models.PixelCNNConfig(**sizes | {"dropout": 0.0} | options), key=0)


def _vae(**options) -> lj.Density:
    lower = lj.models.StageConfig(channels=(4,), strides=(2,), latent=2, dense=False)
    stages = (lower, lj.models.StageConfig(channels=(4,), strides=(1,), latent=2))
    sizes = {"event_shape": (4, 4, 1), "levels": 17, "stages": stages, "likelihood": "logistic"}
    return lj.build(lj.models.VAEConfig(**sizes | options), key=0)


def _vae_vector(**options) -> lj.Density:
    stage = lj.models.StageConfig(channels=(6,), strides=(1,), kernel=1, latent=2)
    sizes = {"event_shape": (3,), "levels": None, "stages": (stage,), "flatten": True}
    return _vae(**sizes | {"likelihood": "gaussian"} | options)


_FIXED = {
    "solver": lj.bijections.Solver("midpoint", steps=8),
    "training_solver": lj.bijections.Solver("midpoint", steps=8),
}


def _ffjord(**options) -> lj.Density:
    sizes = {"dimensions": 3, "hidden": (8,), "flows": 2}
    return lj.build(lj.models.FFJORDConfig(**sizes | options, **_FIXED), key=0)


def _ffjord_image(**options) -> lj.Density:
    sizes = {"event_shape": (4, 4, 1), "levels": 17, "alpha": 0.05, "hidden": (4,), "flows": 1}
    return lj.build(lj.models.ImageFFJORDConfig(**sizes | options, **_FIXED), key=0)


def _vdm(**options) -> lj.Density:
    sizes = {"event_shape": (4, 4, 1), "levels": 17, "width": 8, "blocks": 1, "groups": 2}
    sampler = lj.models.DiffusionSampler(steps=3)
    return lj.build(lj.models.VDMConfig(**sizes | {"sampler": sampler} | options), key=0)


def _vector_vdm(**options) -> lj.Density:
    sizes = {"dimensions": 3, "width": 8, "blocks": 1, "standardize": False}
    sampler = lj.models.DiffusionSampler(steps=3, method="ddim", last="drawn")
    return lj.build(lj.models.VectorVDMConfig(**sizes | {"sampler": sampler} | options), key=0)


def _text_vdm(**options) -> lj.Density:
    sizes = {"length": 3, "vocabulary": 5, "embedding": 4, "width": 8, "blocks": 1, "heads": 2}
    sampler = lj.models.DiffusionSampler(steps=3, last="drawn")
    return lj.build(lj.models.TextVDMConfig(**sizes | {"sampler": sampler} | options), key=0)


def _diffusion_flow(**options) -> lj.Density:
    """Points whose flow is exact, in so few steps that they tell nothing of the equation."""
    solver = lj.bijections.Solver("midpoint", steps=2)
    return _vector_vdm(**options).as_flow(trace=lj.bijections.Trace(), solver=solver)


def _vector_glow(**options) -> lj.Density:
    sizes = {"dimensions": 3, "depth": 2, "width": 8}
    return lj.build(lj.models.VectorGlowConfig(**sizes | options), key=0)


def _vector_flow(kind, **options) -> lj.Density:
    sizes = {"dimensions": 3, "depth": 2, "width": 6, "blocks": 1}
    return lj.build(kind(**sizes | options), key=0)


def _on_floats(make: Callable[..., lj.Density], **options) -> DensityCase:
    shape = (1, 3)
    return DensityCase(lambda: make(condition_shape=shape, **options), condition_shape=shape)


def _on_labels(make: Callable[..., lj.Density], **options) -> DensityCase:
    return DensityCase(lambda: make(num_classes=3, **options), classes=3)


def _gaussian() -> lj.Density:
    rng = np.random.default_rng(0)
    return lj.models.FullGaussian.fit(
        lj.Dataset.from_array(rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)))
    )


def _histogram() -> lj.Density:
    return lj.models.PixelHistogram.fit(
        lj.Dataset.from_array(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) % 4, levels=4)
    )


class Laplace(lj.Density):
    """A density of a user's own: two methods."""

    event_shape = (2,)
    kind = lj.Kind.EXACT

    def __init__(self):
        self.log_scale = nnx.Param(jnp.zeros(2))

    def _log_prob(self, x, key, condition):
        return -jnp.sum(
            jnp.abs(x) * jnp.exp(-self.log_scale[...]) + self.log_scale[...] + jnp.log(2.0)
        )

    def _sample(self, key, condition, temperature):
        return temperature * jnp.exp(self.log_scale[...]) * jax.random.laplace(key, (2,))


class NoisyStandardNormal(lj.Density):
    """A standard normal whose log-probability carries symmetric noise: an estimate."""

    event_shape = (3,)
    kind = lj.Kind.ESTIMATE

    def _log_prob(self, x, key, condition):
        return -0.5 * jnp.sum(x * x + jnp.log(2 * jnp.pi)) + jax.random.normal(key)

    def _sample(self, key, condition, temperature):
        return temperature * jax.random.normal(key, (3,))


MIXED = (
    lj.data.Continuous(name="x"),
    lj.data.Continuous("heavy", name="wild"),
    lj.data.Positive(name="size"),
    lj.data.Bounded(-1, 3, name="share"),
    lj.data.Integer(1, 6, name="rating"),
    lj.data.Integer(0, name="count"),
    lj.data.Integer(name="level"),
    lj.data.Categorical(("blue", "green", "red"), name="color"),
)


def _tabular(columns: Sequence[lj.data.Column]) -> lj.Density:
    d = len(columns)
    normal = lj.models.FullGaussian(jnp.zeros(d), jnp.eye(d) + 0.1 * jnp.tri(d), (d,))
    return lj.models.Tabular(normal, columns).initialize(rows_of(columns, 100), 0)


class NoisyByClass(lj.Density):
    """Normals with one mean for each of three classes, and noise on the log-probability."""

    event_shape = (3,)
    kind = lj.Kind.ESTIMATE
    condition_shape = ()
    num_classes = 3

    def __init__(self, noise: float = 1.0):
        self.means = nnx.Param(jnp.arange(3.0))
        self.noise = noise

    def exact(self, x, condition):
        return -0.5 * jnp.sum(jnp.square(x - self.means[...][condition]) + jnp.log(2 * jnp.pi))

    def _log_prob(self, x, key, condition):
        noise = jax.random.normal(jax.random.fold_in(key, condition))
        return self.exact(x, condition) + self.noise * noise

    def _sample(self, key, condition, temperature):
        return self.means[...][condition] + temperature * jax.random.normal(key, (3,))


def _maf(**options) -> lj.Density:
    sizes = {"dimensions": 3, "depth": 1, "width": 4, "blocks": 1}
    return lj.build(lj.models.MAFConfig(**sizes | options), key=0)


def _ensemble(density: lj.Density, members: int = 3) -> lj.Density:
    return lj.Ensemble([perturbed(density, seed, scale=0.1) for seed in range(members)])


def _naive_bayes() -> lj.Density:
    images = np.random.default_rng(0).integers(0, 4, (60, 3, 3), np.uint8)
    return lj.models.NaiveBayes.fit(
        lj.Dataset.from_array(images, levels=4, labels=np.arange(60) % 3)
    )


def _gaussian_naive_bayes() -> lj.Density:
    points = np.random.default_rng(0).normal(size=(30, 3)) + np.arange(30)[:, None] % 3
    return lj.models.GaussianNaiveBayes.fit(lj.Dataset.from_array(points, labels=np.arange(30) % 3))


DENSITIES: dict[str, DensityCase] = {
    "glow": DensityCase(_glow),
    "glow additive, three channels": DensityCase(
        lambda: _glow(event_shape=(4, 4, 3), levels=256, coupling="additive", permutation="reverse")
    ),
    "glow conditional": DensityCase(
        lambda: _glow(event_shape=(4, 4, 1), num_classes=3, scales=1), classes=3
    ),
    "glow lu": DensityCase(
        lambda: _glow(event_shape=(4, 4, 1), permutation="conv1x1_lu", scales=1)
    ),
    "glow, floats": _on_floats(_glow, event_shape=(4, 4, 1), scales=1),
    "vector glow": DensityCase(_vector_glow),
    "vector glow, floats": _on_floats(_vector_glow),
    "vector glow, labels": _on_labels(_vector_glow, coupling="additive"),
    "nsf, floats": _on_floats(_vector_flow, kind=lj.models.NSFConfig, bins=3),
    "nsf autoregressive": DensityCase(
        lambda: _vector_flow(
            lj.models.NSFConfig, form="autoregressive", depth=1, bins=3, random_order=True
        )
    ),
    "maf, labels": _on_labels(_vector_flow, kind=lj.models.MAFConfig),
    "maf coupling": DensityCase(
        lambda: _vector_flow(lj.models.MAFConfig, form="coupling", scale="exp")
    ),
    "ffjord": DensityCase(_ffjord),
    "ffjord, floats": _on_floats(_ffjord, flows=1),
    "ffjord, labels": _on_labels(_ffjord, flows=1, time="ignore"),
    "ffjord image": DensityCase(_ffjord_image),
    "ffjord image, floats": _on_floats(_ffjord_image, multiscale=False),
    "pixelcnn": DensityCase(_pixelcnn),
    "pixelcnn three channels, padded": DensityCase(
        lambda: _pixelcnn(event_shape=(3, 5, 3), levels=256)
    ),
    "pixelcnn conditional": DensityCase(
        lambda: _pixelcnn(num_classes=3, likelihood="reference", resolutions=1), classes=3
    ),
    "pixelcnn, floats": _on_floats(_pixelcnn, resolutions=1),
    "vae": DensityCase(_vae),
    "vae, floats": _on_floats(_vae, inference="bidirectional", levels=2, likelihood="bernoulli"),
    "vae vector, labels": _on_labels(_vae_vector),
    "vae bidirectional": DensityCase(
        lambda: _vae(levels=2, likelihood="bernoulli", inference="bidirectional")
    ),
    "vae top-down, three channels": DensityCase(
        lambda: _vae(
            event_shape=(4, 4, 3),
            levels=256,
            likelihood="logistic_mixture",
            mixtures=2,
            inference="top_down",
            gated=True,
        )
    ),
    "vae vector": DensityCase(_vae_vector),
    "vdm": DensityCase(lambda: _vdm(schedule="learned_network"), spreads_draws=True),
    "vdm, labels": DensityCase(
        lambda: _vdm(
            num_classes=3,
            blocks=0,
            schedule="importance",
            bound=lj.models.BoundSettings(prediction="velocity", condition_dropout=0.1),
        ),
        classes=3,
        spreads_draws=True,
    ),
    "vector vdm, floats": DensityCase(
        lambda: _vector_vdm(condition_shape=(1, 3)), condition_shape=(1, 3), spreads_draws=True
    ),
    "text vdm": DensityCase(_text_vdm, spreads_draws=True),
    "diffusion flow, floats": _on_floats(_diffusion_flow),
    "dequantized uniform": DensityCase(
        lambda: lj.models.Dequantized(lj.models.Uniform((2, 2, 1)), 4)
    ),
    "full gaussian": DensityCase(_gaussian),
    "pixel histogram": DensityCase(_histogram),
    "naive bayes": DensityCase(_naive_bayes, classes=3),
    "gaussian naive bayes": DensityCase(_gaussian_naive_bayes, classes=3),
    "maf, student t": DensityCase(lambda: _maf(base="student_t")),
    "maf, mixture": DensityCase(lambda: _maf(base="mixture", components=2)),
    "conditioned bound": DensityCase(
        lambda: lj.condition(lj.models.Dequantized(_maf(num_classes=3), 8), 1)
    ),
    "conditioned maf": DensityCase(
        lambda: lj.condition(_maf(condition_shape=(2,)), np.array([0.5, -1.0], np.float32))
    ),
    "class mixture": DensityCase(
        lambda: lj.models.ClassMixture(_maf(num_classes=3), np.log([0.2, 0.3, 0.5]))
    ),
    "class mixture of bounds": DensityCase(
        lambda: lj.models.ClassMixture(lj.models.Dequantized(_maf(num_classes=3), 8))
    ),
    "class mixture of estimates": DensityCase(lambda: lj.models.ClassMixture(NoisyByClass())),
    "ensemble of glows": DensityCase(lambda: _ensemble(_glow(event_shape=(4, 4, 1), scales=1))),
    "ensemble of mafs, labels": DensityCase(lambda: _ensemble(_maf(num_classes=3)), classes=3),
    "ensemble of estimates": DensityCase(lambda: _ensemble(NoisyByClass(), members=2), classes=3),
    "user's laplace": DensityCase(Laplace),
    "noisy normal": DensityCase(NoisyStandardNormal),
    "dequantized noisy normal": DensityCase(
        lambda: lj.models.Dequantized(NoisyStandardNormal(), 8)
    ),
    "tabular": DensityCase(lambda: _tabular(MIXED)),
    "tabular without discrete columns": DensityCase(lambda: _tabular(MIXED[:4])),
    "tabular noisy normal": DensityCase(
        lambda: lj.models.Tabular(NoisyStandardNormal(), MIXED[2:5])
    ),
}


def rows_of(columns: Sequence[lj.data.Column], n: int, seed: int = 0) -> np.ndarray:
    """Random rows of a table."""
    rng = np.random.default_rng(seed)
    rows = []
    for column in columns:
        low, high = column.interval
        values = rng.normal(size=n)
        if np.isfinite(high):
            values = low + (high - low) * rng.uniform(0.01, 0.99, n)
        elif np.isfinite(low):
            values = low + np.exp(values)
        rows.append(np.floor(values) if column.discrete else values)
    return np.stack(rows, axis=1).astype(np.float32)


def examples_of(density: lj.Density, n: int, seed: int = 0) -> np.ndarray:
    """Random examples of a density's event."""
    rng = np.random.default_rng(seed)
    if density.column_kinds is not None:
        return rows_of(density.column_kinds, n, seed)
    if density.levels is not None:
        return rng.integers(0, density.levels, (n, *density.event_shape)).astype(np.uint8)
    return rng.normal(size=(n, *density.event_shape)).astype(np.float32)
