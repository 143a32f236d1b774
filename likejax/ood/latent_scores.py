"""Scores from the white latents of flows: whether they are noise, and how many directions vary."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from likejax.density import Density, white_latents_of_draw
from likejax.inputs import numpy_of
from likejax.ood.density_of_states import Statistics, as_vectors
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    LogProb,
    Numbers,
    OfDensity,
    Values,
)
from likejax.ood.score import Groups, Score, State, with_draws
from likejax.settings import Count


@dataclasses.dataclass(frozen=True)
class LatentTests(OfDensity):
    """Statistics of tests that an example's latents are independent standard normals, ``(n, k)``.

    ``radius``: the cube root of ``||z||^2 / D`` in standard deviations (Wilson and Hilferty).
    ``skewness`` and ``kurtosis``, standardized. ``kolmogorov`` and ``anderson``: the distances of
    Kolmogorov and Smirnov and of Anderson and Darling. For latents in maps also ``vertical``,
    ``horizontal`` and ``channels``: ``sqrt(n)`` times the correlation of neighbors; and
    ``slow`` and ``peak``: the power of the slowest quarter of all frequencies, standardized, and
    the log of the largest power of one frequency. Each is a number of an example alone.

    Example:
      >>> import likejax as lj, numpy as np
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(2), (2,))
      >>> lj.ood.LatentTests()({"density": flow}, np.ones((3, 2), np.float32), None).shape
      (3, 5)
    """

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the statistics of examples.

        Args:
          densities: Densities by name; the scored one has white latents.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the density is exact.
        """
        latents = densities["density"].white_latents(x, key=keys)
        return latent_tests(latents)


@jax.jit
def latent_tests(latents: tuple[Float[Array, "n ..."], ...]) -> Float[Array, "n k"]:
    """Computes the statistics of ``LatentTests`` from latents.

    Args:
      latents: Arrays ``(n, ...)``; those of three further axes are maps
        ``(height, width, channels)``.

    Returns:
      ``(n, k)``: radius, skewness, kurtosis, kolmogorov, anderson, and for maps vertical,
      horizontal, channels, slow, peak.

    Example:
      >>> import jax
      >>> from likejax.ood import latent_tests
      >>> noise = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
      >>> latent_tests((noise,)).shape
      (2, 10)
    """
    return jax.vmap(_tests_of_one)(latents)


def _tests_of_one(latents: tuple[Array, ...]) -> Float[Array, " k"]:
    flat = jnp.concatenate([part.reshape(-1) for part in latents])
    statistics = [*_moments(flat), *_distances(flat)]
    maps = [part for part in latents if part.ndim == 3]
    if maps:
        statistics += [_neighbors(maps, axis) for axis in range(3)]
        statistics += _spectrum(maps)
    return jnp.stack(statistics)


def _moments(z: Float[Array, " d"]) -> list[Array]:
    """Radius, skewness and kurtosis, each about standard normal for standard normal entries."""
    d = z.size
    spread = 2 / (9 * d)
    radius = (jnp.cbrt((z**2).mean()) - (1 - spread)) / math.sqrt(spread)
    skewness = (z**3).mean() * math.sqrt(d / 15)
    kurtosis = ((z**4).mean() - 3) * math.sqrt(d / 96)
    return [radius, skewness, kurtosis]


def _distances(z: Float[Array, " d"]) -> list[Array]:
    """Kolmogorov's and Anderson's distances of the entries from a standard normal."""
    d = z.size
    ordered = jnp.sort(z)
    below, above = jax.scipy.special.log_ndtr(ordered), jax.scipy.special.log_ndtr(-ordered)
    ranks = jnp.arange(1, d + 1)
    cdf = jnp.exp(below)
    kolmogorov = math.sqrt(d) * jnp.maximum(ranks / d - cdf, cdf - (ranks - 1) / d).max()
    weights = (2 * ranks - 1) / d
    anderson = -d - (weights * (below + above[::-1])).sum()
    return [kolmogorov, anderson]


def _neighbors(maps: list[Array], axis: int) -> Array:
    """``sqrt(n)`` times the mean product of neighbors along an axis, over all maps."""
    products, count = jnp.zeros(()), 0
    for part in maps:
        first = jax.lax.slice_in_dim(part, 0, part.shape[axis] - 1, axis=axis)
        second = jax.lax.slice_in_dim(part, 1, part.shape[axis], axis=axis)
        products = products + (first * second).sum()
        count += first.size
    return products / math.sqrt(max(1, count))


def _spectrum(maps: list[Array]) -> list[Array]:
    """Power of slow frequencies, standardized, and the log of the largest power of one."""
    slow, count, peaks = jnp.zeros(()), 0, []
    for part in maps:
        height, width, _ = part.shape
        power = abs(jnp.fft.fft2(part, axes=(0, 1))) ** 2 / (height * width)
        peaks.append(power.max())
        rows = abs(np.fft.fftfreq(height)) <= 0.25
        columns = abs(np.fft.fftfreq(width)) <= 0.25
        is_slow = (rows[:, None] & columns[None])[..., None]
        slow = slow + ((power - 1) * is_slow).sum()
        count += int(is_slow.sum()) * part.shape[2]
    return [slow / math.sqrt(2 * count), jnp.log(jnp.stack(peaks).max())]


@dataclasses.dataclass(frozen=True)
class LatentFit(Score):
    """Fit of an example's latents to independent standard normals, for flows.

    Latents of inside examples look like noise. Those of outside ones keep structure that their
    norm, and so the likelihood, does not show: neighbors that are alike, slow waves, a wrong
    distribution. Every statistic of ``LatentTests`` gets a two-sided p-value by a normal with mean
    and standard deviation of inside examples. The score is ``-2 sum log p`` (``fisher``) or
    ``-log min p`` (``smallest``); it is calibrated like any other, so the tests need be neither
    independent nor normal.

    References:
      Fisher, 1925, Statistical methods for research workers. D'Agostino and Stephens, 1986,
      Goodness-of-fit techniques. Bomatter et al., 2026, arXiv:2605.22496 (structure in the noise
      that a flow infers); the tests here are our own choice.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(16), (16,)).initialize(points[:100], 0)
      >>> score = lj.ood.LatentFit().fit(flow, points[100:])
      >>> noise, constant = score(np.stack([points[0], np.ones(16, np.float32)]))
      >>> bool(noise < constant)
      True
    """

    name: ClassVar[str] = "latent fit"

    combine: Literal["fisher", "smallest"] = "fisher"
    """Combination of the p-values of the tests."""

    @property
    def label(self) -> str:
        """Name in tables, with the combination unless it is Fisher's."""
        return self.name if self.combine == "fisher" else f"{self.name}, smallest p"

    @property
    def features(self) -> tuple[Feature, ...]:
        """The statistics of the tests."""
        return (LatentTests(),)

    def check(self, density: Density) -> None:
        """Raises a ValueError unless the density has white latents.

        Args:
          density: Density that is scored.
        """
        check_white(density)

    def learn(self, statistics: Float[np.ndarray, "n ..."]) -> dict[str, Any]:
        """Returns mean and standard deviation of every statistic over inside examples.

        Args:
          statistics: Statistics of the tests, ``(n, k)``.
        """
        std = statistics.std(axis=0)
        if not std.all():
            raise ValueError("expected latents that differ between inside examples")
        return {"mean": statistics.mean(axis=0), "std": std}

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns the combined p-values of every example.

        Args:
          state: Mapping with ``mean`` and ``std``.
          statistics: Statistics of the tests, ``(n, 1, k)``.
        """
        white = (statistics[:, 0] - state["mean"][None]) / state["std"][None]
        tail = _log_cdf(-abs(white))
        logs = numpy_of(white).logaddexp(tail, tail)  # of both tails
        return -2 * logs.sum(axis=1) if self.combine == "fisher" else -logs.min(axis=1)


def _log_cdf(z: Any) -> Any:
    """Log of the standard normal's distribution function, elementwise."""
    if isinstance(z, jax.Array):
        return jax.scipy.special.log_ndtr(z)
    from scipy.special import log_ndtr

    return log_ndtr(z)


@dataclasses.dataclass(frozen=True)
class LastScale(Score):
    """Score ``s = -(log p(z_L) + log |det| of the last level)`` of a flow of several scales, nats.

    The last level has seen the image from afar. What leaves at earlier levels is local texture,
    which outside images share with inside ones.

    References:
      Schirrmeister et al., 2020, Understanding anomaly detection with deep invertible networks
      through hierarchies of distributions and features, arXiv:2006.10848, section 5.

    Example:
      >>> import jax, likejax as lj, numpy as np
      >>> sizes = {"scales": 2, "depth": 1, "width": 4}
      >>> config = lj.models.GlowConfig(event_shape=(4, 4, 1), **sizes)
      >>> glow, images = lj.build(config, key=0), np.zeros((9, 4, 4, 1), np.uint8)
      >>> lj.ood.LastScale().fit(glow, images, key=0)(images[:2], key=1).shape
      (2,)
    """

    name: ClassVar[str] = "last scale"

    draws: Count = 1
    """Number of draws per example, of which the score is the mean."""

    @property
    def label(self) -> str:
        """Name in tables, with the number of draws unless it is one."""
        return with_draws(self.name, self.draws)

    @property
    def features(self) -> tuple[Feature, ...]:
        """All numbers that the flow offers, among them those of its last level."""
        return (LastLevel(self.draws),)

    def check(self, density: Density) -> None:
        """Raises a ValueError unless the density is a flow of several scales.

        Args:
          density: Density that is scored.
        """
        last_level_names(density)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns minus the log-probability of the last level in nats.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        return -compute(self.features[0])


@dataclasses.dataclass(frozen=True)
class LastLevel(OfDensity):
    """Log-probability of the last level of a flow of several scales, in nats.

    Example:
      >>> import likejax as lj
      >>> lj.ood.LastLevel(draws=4)
      LastLevel(draws=4)
    """

    draws: Count = 1
    """Number of draws per example, of which it is the mean."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Values:
        """Computes the log-probability of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the density is exact.
        """
        names = last_level_names(densities["density"])
        return Statistics(names=names, draws=self.draws)(densities, x, keys).sum(-1)


def last_level_names(density: Density) -> tuple[str, str]:
    """Returns the names of the two numbers of the last level, among ``density.statistics``.

    Args:
      density: A flow of several scales.

    Raises:
      ValueError: If the density has no levels.
    """
    prefix = "latent_log_prob_"
    levels = [name for name in density.statistic_names if name.startswith(prefix)]
    if not levels:
        raise ValueError(
            "expected a flow of several scales, such as Glow, got "
            f"{type(density).__name__}: lj.ood.NegativeLogProb() takes any density"
        )
    last = max(int(name.removeprefix(prefix)) for name in levels)
    return f"{prefix}{last}", f"log_det_{last}"


@dataclasses.dataclass(frozen=True)
class JacobianSpectrum(OfDensity):
    """Logs of the singular values of ``dx/dz`` at an example, ``(n, D)``, smallest first.

    It takes the whole Jacobian of the flow, ``D`` derivatives of it, in the memory of 128 of them:
    quick for tables and small images.

    Example:
      >>> import likejax as lj, numpy as np
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(2), (2,))
      >>> lj.ood.JacobianSpectrum()({"density": flow}, np.ones((3, 2), np.float32), None).shape
      (3, 2)
    """

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the spectra of examples.

        Args:
          densities: Densities by name; the scored one has white latents.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the density is exact.
        """
        return _spectra(densities["density"], jnp.asarray(x), keys)


_DIRECTIONS_AT_A_TIME = 128
"""Derivatives of the flow that are in memory at once."""


@jax.jit
def _spectra(density: Density, x: Array, keys: Array | None) -> Float[Array, "n d"]:
    def spectrum(row: tuple[Array, Array | None]) -> Float[Array, " d"]:
        x, key = row

        def latents(x: Array) -> Array:
            parts = white_latents_of_draw(density, x, key, None)
            return jnp.concatenate([part.reshape(-1) for part in parts])

        def derivative(direction: Array) -> Float[Array, " d"]:
            return jax.jvp(latents, (x,), (direction.reshape(x.shape),))[1]

        directions = jnp.eye(x.size, dtype=x.dtype)
        # some directions at a time, since each takes the memory of a whole pass
        columns = jax.lax.map(derivative, directions, batch_size=_DIRECTIONS_AT_A_TIME)
        jacobian = columns.T
        singular = jnp.linalg.svd(jacobian, compute_uv=False)
        return -jnp.log(singular)  # of the inverse map: largest of dz/dx first, so smallest here

    floats = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jax.lax.map(spectrum, (floats, keys))


@dataclasses.dataclass(frozen=True)
class LocalDimension(Score):
    """Low likelihood or low local dimension: ``s = -log min(p_likelihood, p_dimension)``.

    The local dimension at ``x`` is the number of singular values of ``dx/dz`` above a threshold:
    of directions in which the flow's data vary at this place. Simple outside images that a flow
    finds likely lie where it is low. Both p-values are one-sided and empirical, from inside
    examples. It takes the whole Jacobian of a flow: quick for tables and small images, and for
    larger ones as many passes for each example as it has dimensions.

    References:
      Kamkari, Ross, Cresswell, Caterini, Krishnan and Loaiza-Ganem, 2024, A geometric explanation
      of the likelihood OOD detection paradox, arXiv:2403.18910.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(2), (2,)).initialize(points[:100], 0)
      >>> score = lj.ood.LocalDimension().fit(flow, points[100:])
      >>> near, far = score(np.array([[0, 0], [9, 9]], np.float32))
      >>> bool(near < far)
      True
    """

    name: ClassVar[str] = "local dimension"

    log_threshold: float | None = None
    """Log of the singular value above which a direction counts; ``None`` for the median of all
    singular values of inside examples."""
    draws: Count = 1
    """Number of draws per example of the log-probability."""

    @property
    def label(self) -> str:
        """Name in tables, with the number of draws unless it is one."""
        return with_draws(self.name, self.draws)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The log-probability and the singular values."""
        return LogProb(draws=self.draws), JacobianSpectrum()

    def check(self, density: Density) -> None:
        """Raises a ValueError unless the density has white latents.

        Args:
          density: Density that is scored.
        """
        check_white(density)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Numbers:
        """Returns log-probability and logs of singular values as one vector, ``(n, 1 + D)``.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        return as_vectors([compute(feature) for feature in self.features])

    def learn(self, statistics: Float[np.ndarray, "n ..."]) -> dict[str, Any]:
        """Returns the threshold, and the sorted likelihoods and dimensions of inside examples.

        Args:
          statistics: Vectors of inside examples, ``(n, 1 + D)``.
        """
        log_prob, spectra = statistics[:, 0], statistics[:, 1:]
        threshold = self.log_threshold
        if threshold is None:
            threshold = float(np.median(spectra))
        dimensions = (spectra > threshold).sum(axis=1)
        ordered = {"log_prob": np.sort(log_prob), "dimension": np.sort(dimensions) * 1.0}
        return {"log_threshold": threshold, **ordered}

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns minus the log of the smaller p-value.

        Args:
          state: Result of ``learn``.
          statistics: Vectors, ``(n, 1, 1 + D)``.
        """
        values = statistics[:, 0]
        numpy = numpy_of(values)
        dimension = (values[:, 1:] > state["log_threshold"]).sum(axis=1)
        p_values = []
        for name, own in (("log_prob", values[:, 0]), ("dimension", dimension)):
            ordered = state[name]
            at_most = numpy.searchsorted(ordered, own, side="right")
            p_values.append((1 + at_most) / (len(ordered) + 1))
        smaller = numpy.minimum(*p_values)
        return numpy.where(numpy.isnan(values).any(axis=1), math.nan, -numpy.log(smaller))


def check_white(density: Density) -> None:
    """Raises a ValueError unless a density has latents that are white if the model is right.

    Args:
      density: Density that is scored.
    """
    if not density.offers("white_latents"):
        raise ValueError(
            "expected a flow with a standard normal base, whose latents are noise, got "
            f"{type(density).__name__}: lj.ood.DensityOfStates() takes any density"
        )
