"""Gaussian priors as whitening maps: of the half that is factored out, and of the top latent."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.bijection import Bijection, Event, LogDet, no_volume
from likejax.bijections.coupling import halves
from likejax.nn.channels import per_channel
from likejax.nn.condition import as_vector, row_of_label
from likejax.nn.edge_convolution import ZeroConvolution
from likejax.settings import Count, CountOrOff, checked

Whole = Float[Array, "*shape channels"]
Halves = tuple[Float[Array, "*shape kept"], Float[Array, "*shape out"]]


class Split(Bijection):
    """Factors out half of the channels, whitened by a Gaussian that depends on the other half.

    ``z = (x1, (x2 - mean(x1)) * exp(-log_std(x1)))``, ``log_det = -sum(log_std)``. The mean is at
    the even and ``log_std`` at the odd channels of a convolution that starts at zero.

    Args:
      channels: Size of the last axis, at least 2.
      kernel_size: Kernel size of the convolution: 3 for images, 1 for vectors.

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803, section 3.6. Kingma and
      Dhariwal, 2018, Glow, arXiv:1807.03039, official code (``split2d_prior``).

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> (kept, white), log_det = lj.bijections.Split(4, kernel_size=1).forward(jnp.ones(4))
      >>> kept.shape, white.shape
      ((2,), (2,))
    """

    factored = 1

    def __init__(self, channels: int, *, kernel_size: int = 3):
        self.kept, out = halves(channels)
        self.prior = ZeroConvolution(self.kept, 2 * out, kernel_size=kernel_size)

    @override
    def forward(
        self, x: Whole, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Halves, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        kept, out = jnp.split(x, [self.kept], axis=-1)
        mean, log_std = self._mean_and_log_std(kept)
        return (kept, (out - mean) * jnp.exp(-log_std)), -jnp.sum(log_std)

    @override
    def inverse(self, z: Halves, condition: Array | None = None) -> Whole:
        """Maps a latent back to its example."""
        kept, white = z
        mean, log_std = self._mean_and_log_std(kept)
        return jnp.concatenate([kept, white * jnp.exp(log_std) + mean], axis=-1)

    def _mean_and_log_std(self, kept: Array) -> tuple[Array, Array]:
        h = self.prior(kept)
        return h[..., 0::2], h[..., 1::2]


class FactorOut(Bijection):
    """Factors out the second half of the channels as it is: ``z = (x1, x2)``, ``log_det = 0``.

    Args:
      channels: Size of the last axis, at least 2.

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803, section 3.6; the official
      FFJORD code.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> (kept, out), log_det = lj.bijections.FactorOut(5).forward(jnp.arange(5.0))
      >>> kept.tolist(), out.tolist()
      ([0.0, 1.0, 2.0], [3.0, 4.0])
    """

    factored = 1

    def __init__(self, channels: int):
        self.kept, _ = halves(channels)

    @override
    def forward(
        self, x: Whole, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Halves, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        kept, out = jnp.split(x, [self.kept], axis=-1)
        return (kept, out), no_volume(x)

    @override
    def inverse(self, z: Halves, condition: Array | None = None) -> Whole:
        """Maps a latent back to its example."""
        return jnp.concatenate(z, axis=-1)


class ConditionEmbedding(nnx.Module):
    """``(c W + bias) * exp(3 * log_scale)``, all zero at the start.

    ``c`` holds the floats of a condition, or is the one-hot vector of a label. A label out of range
    gives NaN.

    Args:
      condition_size: Number of labels, or of entries of a float condition.
      features: Size of the output.
    """

    def __init__(self, condition_size: int, features: int):
        self.linear = ZeroConvolution(condition_size, features, kernel_size=1)
        self.condition_size = condition_size

    @override
    def __call__(self, condition: Array) -> Float[Array, " features"]:
        """Returns the vector of a label, or of floats of any shape."""
        c = as_vector(condition)
        if jnp.issubdtype(c.dtype, jnp.integer):
            c = row_of_label(jnp.eye(self.condition_size, dtype=self.linear.bias[...].dtype), c)
        return self.linear(c)


class TopPrior(Bijection):
    """Whitens the top latent by a learned Gaussian, ``z = (x - mean) * exp(-log_std)``.

    The mean (first half of the channels) and ``log_std`` (second half) are a convolution of an
    all-zero image that starts at zero. Through its edge channel the border pixels have values of
    their own. A conditional prior adds an embedding of the condition.

    Args:
      channels: Size of the last axis.
      num_classes: Number of labels of ``condition``; ``None`` if it is no label.
      condition_size: Number of entries of a float ``condition``; ``None`` if it has no floats.
      learned: Whether the unconditional part is learned; a standard normal otherwise.
      kernel_size: Kernel size of the convolution: 3 for images, 1 for vectors.

    Raises:
      ValueError: If there are both labels and floats.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, official code (``prior``, ``learntop``,
      ``ycond``).

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> prior = lj.bijections.TopPrior(2, num_classes=10)
      >>> prior.forward(jnp.ones((4, 4, 2)), condition=jnp.asarray(3))[0].shape
      (4, 4, 2)
    """

    def __init__(
        self,
        channels: int,
        *,
        num_classes: int | None = None,
        condition_size: int | None = None,
        learned: bool = True,
        kernel_size: int = 3,
    ):
        channels = checked("channels", channels, Count)
        num_classes = checked("num_classes", num_classes, CountOrOff)
        condition_size = checked("condition_size", condition_size, CountOrOff)
        if num_classes is not None and condition_size is not None:
            raise ValueError(
                f"expected num_classes or condition_size, got {num_classes} and {condition_size}: "
                "a condition is a class label or an array of floats"
            )
        prior, embedding = None, None
        if learned:
            prior = ZeroConvolution(2 * channels, 2 * channels, kernel_size=kernel_size)
        size = condition_size if num_classes is None else num_classes
        if size is not None:
            embedding = ConditionEmbedding(size, 2 * channels)
        self.prior = nnx.data(prior)
        self.embedding = nnx.data(embedding)

    @override
    def forward(
        self, x: Event, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Event, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        mean, log_std = self._mean_and_log_std(x.shape, condition)
        return (x - mean) * jnp.exp(-log_std), -jnp.sum(log_std)

    @override
    def inverse(self, z: Event, condition: Array | None = None) -> Event:
        """Maps a latent back to its example."""
        mean, log_std = self._mean_and_log_std(z.shape, condition)
        return z * jnp.exp(log_std) + mean

    def _mean_and_log_std(
        self, shape: tuple[int, ...], condition: Array | None
    ) -> tuple[Array, Array]:
        h = jnp.zeros((*shape[:-1], 2 * shape[-1]))
        if self.prior is not None:
            h = self.prior(h)
        if self.embedding is not None:
            if condition is None:
                raise ValueError("expected a condition: this prior is conditional")
            h = h + per_channel(self.embedding(condition), h)
        mean, log_std = jnp.split(h, 2, axis=-1)
        return mean, log_std
