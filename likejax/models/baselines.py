"""Three simple densities, two of them fitted without training: any model must beat them."""

from __future__ import annotations

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from likejax.data.constant_columns import warning_of_constant_columns
from likejax.data.dataset import Dataset
from likejax.density import Density, Kind, Moments, integer_dtype
from likejax.distributions import standard_normal_log_prob, table_log_probs, table_moments
from likejax.models.dequantize import Dequantized
from likejax.nn.modules import Buffer
from likejax.settings import Count, NonNegative, checked


class PixelHistogram(Density):
    """Independent (sub-)pixels, by the frequencies of their values with add-one smoothing; exact.

    ``P(x) = prod_d (count_d(x_d) + 1) / (n + levels)``.

    Args:
      log_probs: Log-frequencies ``(*event_shape, levels)``.

    Example:
      >>> import likejax as lj
      >>> lj.models.PixelHistogram.fit(lj.load("digits")).levels
      17
    """

    kind = Kind.EXACT
    differentiable = False
    levels: int

    def __init__(self, log_probs: Float[Array, "*event levels"]):
        self.log_probs = Buffer(log_probs)
        self.event_shape = log_probs.shape[:-1]
        self.levels = log_probs.shape[-1]

    @classmethod
    def fit(cls, dataset: object) -> PixelHistogram:
        """Counts the values of every pixel.

        Args:
          dataset: A dataset, or an array, of integers.

        Raises:
          ValueError: If the data are continuous.

        Example:
          >>> import likejax as lj
          >>> lj.models.PixelHistogram.fit(lj.load("digits")).event_shape
          (8, 8, 1)
        """
        dataset = dataset if isinstance(dataset, Dataset) else Dataset.from_array(dataset)
        if dataset.levels is None:
            raise ValueError(f"expected integer data, {dataset.name!r} is continuous")
        pixels = dataset.examples.reshape(len(dataset), -1).astype(np.int64)
        size = pixels.shape[1] * dataset.levels
        counts = np.bincount(
            (pixels + dataset.levels * np.arange(pixels.shape[1])).reshape(-1), minlength=size
        )
        counts = counts.reshape(*dataset.event_shape, dataset.levels)
        return cls(jnp.asarray(np.log((counts + 1.0) / (len(dataset) + dataset.levels))))

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        return self._log_prob_map(x, condition).sum()

    def _log_prob_map(self, x: Array, condition: Array | None) -> Float[Array, "*event"]:
        return table_log_probs(x, self.log_probs[...])

    def _token_moments(self, x: Array, condition: Array | None) -> Moments:
        return table_moments(self.log_probs[...])

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        # At temperature 0 the sample is the most frequent value.
        gumbel = jax.random.gumbel(key, self.log_probs[...].shape)
        values = jnp.argmax(self.log_probs[...] + temperature * gumbel, axis=-1)
        return values.astype(integer_dtype(self.levels))

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        # A frequency of 0 has the log -inf, which is no failure.
        is_number = ~jnp.isnan(self.log_probs[...]).any()
        return self._sample(key, condition, temperature), is_number


class FullGaussian(Density):
    """A multivariate normal with full covariance, ``x = mean + cholesky eps``; exact.

    Args:
      mean: Mean of the flattened example, ``(D,)``.
      cholesky: Lower triangular root of the covariance, ``(D, D)``.
      event_shape: Shape of one example.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> normal = lj.models.FullGaussian(jnp.zeros(2), jnp.eye(2), (2,))
      >>> round(float(normal.log_prob(jnp.zeros(2))), 4)  # -log(2 pi)
      -1.8379
    """

    kind = Kind.EXACT

    def __init__(
        self, mean: Float[Array, " d"], cholesky: Float[Array, "d d"], event_shape: tuple[int, ...]
    ):
        dimensions = math.prod(event_shape)
        if jnp.shape(mean) != (dimensions,) or jnp.shape(cholesky) != (dimensions, dimensions):
            raise ValueError(
                f"expected a mean of shape ({dimensions},) and a root of shape "
                f"({dimensions}, {dimensions}) for events of shape {event_shape}, got "
                f"{jnp.shape(mean)} and {jnp.shape(cholesky)}"
            )
        self.mean = Buffer(mean)
        self.cholesky = Buffer(cholesky)
        self.event_shape = tuple(event_shape)

    @classmethod
    def fit(cls, dataset: object, *, ridge: float = 1e-6) -> Density:
        """Fits a Gaussian; for integers, its dequantized form.

        For integers the moments are those of ``(x + u) / levels`` with ``u`` uniform, whose
        variance ``1 / (12 levels^2)`` keeps the covariance regular. For continuous data ``ridge``
        times the mean variance is added.

        Args:
          dataset: A dataset or an array.
          ridge: Part of the mean variance that is added to the variances of continuous data. A
            column of one value, which is warned of, has no other variance.

        Raises:
          ValueError: If the covariance is singular.

        Example:
          >>> import likejax as lj
          >>> lj.models.FullGaussian.fit(lj.load("digits")).kind
          <Kind.BOUND: 'bound'>
        """
        ridge = checked("ridge", ridge, NonNegative)
        dataset = dataset if isinstance(dataset, Dataset) else Dataset.from_array(dataset)
        rows = dataset.examples.reshape(len(dataset), -1).astype(np.float64)
        if dataset.levels is not None:
            rows = (rows + 0.5) / dataset.levels
        dataset.check_precision()
        # Shifted first, which changes no covariance: a mean of a large constant column is rounded.
        covariance = np.cov(rows - rows[0], rowvar=False, bias=True).reshape(rows.shape[1], -1)
        if dataset.levels is None:
            extra = ridge * np.trace(covariance) / len(covariance)
        else:
            extra = 1 / (12 * dataset.levels**2)
        try:
            cholesky = np.linalg.cholesky(covariance + extra * np.eye(len(covariance)))
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"expected data with a regular covariance, {dataset.name!r} has constant or "
                "linearly dependent columns: leave these out, or choose a larger ridge"
            ) from error
        text = warning_of_constant_columns(dataset)
        if text is not None:  # their variance is the ridge alone
            warnings.warn(text, stacklevel=2)
        gaussian = cls(
            jnp.asarray(rows.mean(0), float), jnp.asarray(cholesky, float), dataset.event_shape
        )
        return gaussian if dataset.levels is None else Dequantized(gaussian, dataset.levels)

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        cholesky = self.cholesky[...]
        z = jax.scipy.linalg.solve_triangular(cholesky, x.reshape(-1) - self.mean[...], lower=True)
        return standard_normal_log_prob(z).sum() - jnp.log(jnp.diag(cholesky)).sum()

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        eps = temperature * jax.random.normal(key, self.mean[...].shape)
        x = self.mean[...] + jnp.dot(self.cholesky[...], eps, precision="highest")
        return x.reshape(self.event_shape)


class Uniform(Density):
    """The uniform density on the unit cube.

    Under ``Dequantized`` it scores ``log2(levels)`` bits/dim exactly.

    Args:
      event_shape: Shape of one example.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> lj.models.Uniform((2,)).log_prob(jnp.array([0.5, 0.5])).item()
      0.0
    """

    kind = Kind.EXACT
    differentiable = False

    def __init__(self, event_shape: tuple[int, ...]):
        self.event_shape = checked("event_shape", event_shape, tuple[Count, ...])

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        return jnp.where(jnp.all((x >= 0) & (x <= 1)), jnp.zeros((), x.dtype), -math.inf)

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return jax.random.uniform(key, self.event_shape)
