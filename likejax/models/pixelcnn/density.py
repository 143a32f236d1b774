"""PixelCNN++: the exact probability of an integer image, pixel by pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Num

from likejax.batching import Rows, over_batch
from likejax.density import (
    Density,
    Kind,
    Moments,
    Statistics,
    Terms,
    checked_temperature,
    integer_dtype,
)
from likejax.distributions import (
    Form,
    LogisticMixture,
    logistic_mixture_log_probs,
    logistic_mixture_moments,
    to_unit_scale,
)
from likejax.inputs import inside_levels
from likejax.keys import KeyLike, as_key
from likejax.models.conditional import Conditional
from likejax.models.pixelcnn import sampling
from likejax.models.pixelcnn.causal import BlockOptions
from likejax.models.pixelcnn.network import PixelCNNNetwork
from likejax.nn.condition import as_vector
from likejax.nn.dtypes import compute_dtype
from likejax.nn.modules import replace
from likejax.rounding import warn_of_lost
from likejax.settings import (
    Count,
    CountOrOff,
    Fraction,
    Levels,
    Positive,
    Range,
    checked,
)

Sampler = Literal["cached", "fixed_point", "naive"]
"""Way to draw the pixels; the distribution is the same."""


@dataclasses.dataclass(frozen=True)
class PixelCNNConfig(Conditional):
    """A PixelCNN++; the defaults are the official code's CIFAR-10 model.

    A condition adds a bias, a linear function of it, to every gated block.

    Example:
      >>> import jax, likejax as lj
      >>> sizes = {"event_shape": (8, 8, 1), "filters": 4, "blocks": 1, "mixtures": 2}
      >>> config = lj.models.PixelCNNConfig(levels=17, **sizes)
      >>> lj.build(config, key=jax.random.key(0)).kind
      <Kind.EXACT: 'exact'>
    """

    family: ClassVar[str] = "pixelcnn"

    event_shape: tuple[Count, Count, Count] = (32, 32, 3)
    """Height, width and channels of the images; any size, padded inside where needed."""
    levels: Levels = 256
    """Integer values of a (sub-)pixel."""
    filters: Count = 160
    """Channels of every layer, F."""
    blocks: Count = 5
    """Gated blocks on a resolution each way, R."""
    resolutions: Count = 3
    """Resolutions of the U-nets, each half the size of the one before."""
    mixtures: Count = 10
    """Components of the logistic mixture, M."""
    dropout: Fraction = 0.5
    """Rate of dropout in training."""
    num_classes: CountOrOff = None
    """Number of class labels of a conditional model; ``None`` if the condition is no label."""
    likelihood: Form = "exact"
    """Form of the discretized logistic; ``reference`` approximates small masses, as the official
    code does."""
    output_scale: Positive = 1.0
    """Standard deviation of the network's outputs after initialization; 0.1 starts nearer to a good
    loss."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type the network computes in; the likelihood itself stays in float32."""
    remat: bool = False
    """Compute the inside of each block anew for gradients, which saves memory."""
    sampler: Sampler = "cached"
    """Way to draw pixels, see ``PixelCNN.with_sampler``; the likelihood does not depend on it."""
    condition_shape: tuple[Count, ...] | None = None
    """Shape of a float condition; ``None`` if the condition is none."""

    def build(self, rngs: nnx.Rngs) -> PixelCNN:
        """Returns the untrained density, its repeated blocks stacked.

        Args:
          rngs: Source of the initial weights.
        """
        channels = self.event_shape[2]
        dtype = compute_dtype(self.compute_dtype)
        network = PixelCNNNetwork(
            channels,
            LogisticMixture.size(channels, self.mixtures),
            filters=self.filters,
            blocks=self.blocks,
            levels=self.resolutions,
            output_scale=self.output_scale,
            options=BlockOptions(self.dropout, self.condition_size, dtype, self.remat),
            rngs=rngs,
        )
        density = PixelCNN(
            network,
            self.event_shape,
            levels=self.levels,
            mixtures=self.mixtures,
            form=self.likelihood,
            num_classes=self.num_classes,
            condition_shape=self.condition_shape,
        )
        return replace(density, sampler=self.sampler)


class PixelCNN(Density):
    """``log P(x) = sum_i log P(x_i | x_1 ... x_(i-1))`` over pixels in raster order, exact.

    A pixel's channels share a mixture of discretized logistics, in which the mean of a channel is
    linear in the channels before it. Nothing is dequantized, and the key is unused; ``terms`` uses
    it for dropout.

    Args:
      network: Network from images on [-1, 1] to the parameters of each pixel's mixture.
      event_shape: Height, width and channels.
      levels: Integer values of a (sub-)pixel.
      mixtures: Number of components.
      form: Form of the discretized logistic, ``exact`` or the official code's ``reference``.
      num_classes: Number of labels of a conditional model; ``None`` if the condition is no
        label.
      condition_shape: Shape of a float condition; ``None`` if the condition is none.

    References:
      Salimans, Karpathy, Chen and Kingma, 2017, PixelCNN++: Improving the PixelCNN with discretized
      logistic mixture likelihood and other modifications, arXiv:1701.05517, and its official code.

    Example:
      >>> import jax, numpy as np, likejax as lj
      >>> sizes = {"event_shape": (4, 4, 1), "filters": 4, "blocks": 1, "resolutions": 1}
      >>> density = lj.build(lj.models.PixelCNNConfig(mixtures=2, **sizes), key=jax.random.key(0))
      >>> density.log_prob(np.zeros((3, 4, 4, 1), np.uint8)).shape
      (3,)
    """

    kind = Kind.EXACT
    levels: int

    def __init__(
        self,
        network: PixelCNNNetwork,
        event_shape: tuple[int, int, int],
        *,
        levels: int,
        mixtures: int,
        form: Form = "exact",
        num_classes: int | None = None,
        condition_shape: tuple[int, ...] | None = None,
    ):
        self.network = network
        self.event_shape = tuple(event_shape)
        self.levels = levels
        self.mixtures = mixtures
        self.form: Form = checked("form", form, Form)
        self.num_classes = checked("num_classes", num_classes, CountOrOff)
        self.condition_shape = condition_shape if num_classes is None else ()
        self.sampler: Sampler = "cached"

    def mixture(
        self,
        x: Num[Array, "*batch height width channels"],
        condition: Array | None = None,
        key: Array | None = None,
    ) -> LogisticMixture:
        """Returns the distribution of each pixel given those before it.

        Args:
          x: Integer images.
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``.
          key: Key for dropout; ``None`` for none.
        """
        outputs = self.network(self._image(x), self._vectors(condition), key)
        return LogisticMixture.of(outputs, self.event_shape[2], self.mixtures)

    def _vectors(self, condition: Array | None) -> Array | None:
        """Conditions as the network takes them: labels, or floats in vectors."""
        if condition is None:
            return None
        return as_vector(condition, axes=len(self.condition_shape or ()))

    def _image(self, x: Array) -> Array:
        """Integers as the network takes them."""
        return to_unit_scale(x, self.levels, self.network.above_first.bias[...].dtype)

    def _log_probs(self, x: Array, condition: Array | None, key: Array | None) -> Array:
        mixture = self.mixture(x, condition, key)
        values = logistic_mixture_log_probs(x, mixture, self.levels, self.form)
        return jnp.where(inside_levels(x, self.levels), values, -jnp.inf)

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        return self._log_probs(x, condition, None).sum()

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        return Terms(self._log_probs(x, condition, key).sum(), {})

    def _log_prob_map(self, x: Array, condition: Array | None) -> Float[Array, "*event"]:
        return self._log_probs(x, condition, None)

    def _token_moments(self, x: Array, condition: Array | None) -> Moments:
        mixture = self.mixture(x, condition)
        return logistic_mixture_moments(x, mixture, self.levels, self.form)

    def _statistics(self, x: Array, key: Array | None, condition: Array | None) -> Statistics:
        """Sum and spread of the pixels' log-probabilities, and the mean of their lowest parts."""
        ordered = jnp.sort(self._log_probs(x, condition, None).reshape(-1))
        values = {
            "log_prob": self._log_prob(x, key, condition),
            "pixel_log_prob_std": ordered.std(),
        }
        for percent in (1, 5, 20):
            count = max(1, ordered.size * percent // 100)
            values[f"pixel_log_prob_lowest_{percent:02d}"] = ordered[:count].mean()
        return values

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        nothing = jnp.zeros(self.event_shape, integer_dtype(self.levels))
        return self._completed(nothing, 0, key, condition, temperature)

    def _draw_rows(self, rows: Rows, temperature: ArrayLike) -> tuple[Array, Bool[Array, "*batch"]]:
        """Completes images of which nothing is known, by the program that ``inpaint`` runs."""
        nothing = np.zeros((rows.count, *self.event_shape), integer_dtype(self.levels))
        return over_batch(_completed, self, rows._replace(x=nothing), 0, temperature)

    def _completed(
        self,
        x: Array,
        known: ArrayLike,
        key: Array,
        condition: Array | None,
        temperature: ArrayLike,
    ) -> sampling.Drawn:
        noise = sampling.draw_noise(key, self.event_shape, self.mixtures)
        task = sampling.Task(x, known, noise, self._vectors(condition), temperature)
        return _SAMPLERS[self.sampler](self, task)

    def initialize(self, batch: ArrayLike, key: KeyLike) -> PixelCNN:
        """Returns a density whose layers standardize their outputs on ``batch``.

        Layers are initialized in the order in which they run, each on the output of those before
        it, with dropout and without conditions.

        Args:
          batch: Integer examples ``(n, *event_shape)``.
          key: Key of dropout.
        """
        flat = self._checked_batch(batch)
        return replace(self, network=_initialized(self.network, self._image(flat), as_key(key)))

    def log_prob_rest(
        self, x: ArrayLike, known: int, *, condition: ArrayLike | None = None
    ) -> Float[Array, "*batch"]:
        """``log P(rest | first pixels)``, exact, in nats.

        Args:
          x: Integers ``(*batch, *event_shape)``.
          known: Number of pixels in raster order that are given, 0 to height * width.
          condition: Condition, as for ``log_prob``.
        """
        known = self._checked_known(known)
        each = self.log_prob_map(x, condition=condition)
        return each.reshape(*each.shape[:-3], -1, self.event_shape[2])[..., known:, :].sum((-2, -1))

    def inpaint(
        self,
        x: ArrayLike,
        known: int,
        *,
        key: KeyLike,
        condition: ArrayLike | None = None,
        temperature: ArrayLike = 1.0,
    ) -> Integer[Array, "*batch event"]:
        """Images whose first ``known`` pixels are those of ``x``, the rest drawn given them.

        Args:
          x: Integers ``(*batch, *event_shape)``; pixels after the known ones do not matter.
          known: Number of pixels in raster order that are kept: ``14 * 28`` is the upper half of
            28x28.
          key: One key, or keys of shape ``batch``, as for ``log_prob``; with ``known=0`` the images
            are those of ``sample``.
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``, or one for all.
          temperature: Factor on the noise, as for ``sample``.

        Returns:
          Integers ``(*batch, *event_shape)``.

        Raises:
          ValueError: If ``known`` is not between 0 and the number of pixels, or for a wrong shape.
        """
        known = self._checked_known(known)
        rows = self._rows(x, key=as_key(key), condition=condition)
        temperature = checked_temperature(temperature)
        images, finite = over_batch(_completed, self, rows, known, temperature)
        again = "density.log_prob(x) is NaN for images that the model cannot compute."
        warn_of_lost(finite.reshape(-1), "completed image", again)
        return images

    def with_sampler(self, sampler: Sampler) -> PixelCNN:
        """Returns the density with another way to sample from the same distribution.

        ``save`` keeps the choice.

        Args:
          sampler: ``cached`` computes each row and pixel once; ``fixed_point`` draws all pixels at
            once until the image no longer changes; ``naive`` runs the network once a pixel. With
            one key the last two agree bit for bit, and the first up to rounding at ties.

        Raises:
          ValueError: For another name.
        """
        sampler = checked("sampler", sampler, Sampler)
        config = None if self.config is None else dataclasses.replace(self.config, sampler=sampler)
        return replace(self, sampler=sampler, config=config)

    def _checked_known(self, known: object) -> int:
        pixels = self.event_shape[0] * self.event_shape[1]
        shape = np.asarray(known).shape
        if shape:
            raise TypeError(
                f"expected known to be a number of pixels in raster order, 0 to {pixels}, got an "
                f"array of shape {shape}: a PixelCNN++ completes the pixels after a "
                "prefix, not any mask"
            )
        return checked("known", known, Annotated[int, Range(at_least=0, at_most=pixels)])


_SAMPLERS: dict[str, Callable[[PixelCNN, sampling.Task], sampling.Drawn]] = {
    "cached": sampling.cached,
    "fixed_point": sampling.fixed_point,
    "naive": sampling.naive,
}


# --- queries of one example, in the form that `batching` vectorizes


def _completed(
    density: PixelCNN,
    x: Array,
    key: Array,
    condition: Array | None,
    known: ArrayLike,
    temperature: ArrayLike,
) -> sampling.Drawn:
    return density._completed(x, known, key, condition, temperature)


@jax.jit
def _initialized(network: PixelCNNNetwork, image: Array, key: Array) -> PixelCNNNetwork:
    return network.initialize(image, key)
