"""Gaussian priors as whitening maps: of the half that is factored out, and of the top latent."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from likejax.bijections.bijection import Bijection
from likejax.bijections.coupling import halves
from likejax.nn.convolutions import ZeroLinear
from likejax.nn.labels import row_of_label
from likejax.settings import Count, CountOrZero, checked


class Split(Bijection):
    """Factors out the second half of the channels, whitened by a Gaussian that depends on the first half.

    ``z = (x1, (x2 - mean(x1)) * exp(-log_std(x1)))``, ``log_det = -sum(log_std)``; mean at the even and
    log_std at the odd channels of a zero-initialized convolution.

    Args:
      channels: Size of the last axis, at least 2.
      kernel_size: 3 for images, 1 for vectors.

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803, section 3.6. Kingma and Dhariwal,
      2018, Glow, arXiv:1807.03039, official code (``split2d_prior``).
    """

    factored = 1

    def __init__(self, channels: int, *, kernel_size: int = 3):
        self.kept, out = halves(channels)
        self.prior = ZeroLinear(self.kept, 2 * out, kernel_size=kernel_size)

    def forward(
        self,
        x: Float[Array, "*shape channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[tuple[Float[Array, "*shape kept"], Float[Array, "*shape out"]], Float[Array, ""]]:
        kept, out = jnp.split(x, [self.kept], axis=-1)
        h = self.prior(kept)
        mean, log_std = h[..., 0::2], h[..., 1::2]
        return (kept, (out - mean) * jnp.exp(-log_std)), -jnp.sum(log_std)

    def inverse(
        self,
        z: tuple[Float[Array, "*shape kept"], Float[Array, "*shape out"]],
        condition: Array | None = None,
    ) -> Float[Array, "*shape channels"]:
        kept, white = z
        h = self.prior(kept)
        return jnp.concatenate([kept, white * jnp.exp(h[..., 1::2]) + h[..., 0::2]], axis=-1)


class FactorOut(Bijection):
    """Factors out the second half of the channels as it is: ``z = (x1, x2)``, ``log_det = 0``.

    Args:
      channels: Size of the last axis, at least 2.

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803, section 3.6; the official FFJORD code.
    """

    factored = 1

    def __init__(self, channels: int):
        self.kept, _ = halves(channels)

    def forward(
        self,
        x: Float[Array, "*shape channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[tuple[Float[Array, "*shape kept"], Float[Array, "*shape out"]], Float[Array, ""]]:
        kept, out = jnp.split(x, [self.kept], axis=-1)
        return (kept, out), jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))

    def inverse(
        self,
        z: tuple[Float[Array, "*shape kept"], Float[Array, "*shape out"]],
        condition: Array | None = None,
    ) -> Float[Array, "*shape channels"]:
        return jnp.concatenate(z, axis=-1)


class ClassEmbedding(nnx.Module):
    """``(one_hot(label) W + bias) * exp(3 * log_scale)``, all zero at the start; NaN for a label out of range.

    Args:
      num_classes: Number of labels.
      features: Size of the output.
    """

    def __init__(self, num_classes: int, features: int):
        self.linear = ZeroLinear(num_classes, features, kernel_size=1)
        self.num_classes = num_classes

    def __call__(self, label: Int[Array, ""]) -> Float[Array, " features"]:
        one_hots = jnp.eye(self.num_classes, dtype=self.linear.bias[...].dtype)
        return self.linear(row_of_label(one_hots, label))


class TopPrior(Bijection):
    """Whitens the top latent by a learned Gaussian, ``z = (x - mean) * exp(-log_std)``.

    Mean (first half of the channels) and log_std (second half) are a zero-initialized convolution of an
    all-zero image, so through the edge channel the border pixels have values of their own, plus a class
    embedding if conditional.

    Args:
      channels: Size of the last axis.
      num_classes: Number of labels of ``condition``; 0 if unconditional.
      learned: Whether the unconditional part is learned; a standard normal otherwise.
      kernel_size: 3 for images, 1 for vectors.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, official code (``prior``, ``learntop``, ``ycond``).
    """

    def __init__(
        self, channels: int, *, num_classes: int = 0, learned: bool = True, kernel_size: int = 3
    ):
        channels = checked("channels", channels, Count)
        num_classes = checked("num_classes", num_classes, CountOrZero)
        self.prior = nnx.data(
            ZeroLinear(2 * channels, 2 * channels, kernel_size=kernel_size) if learned else None
        )
        self.embedding = nnx.data(
            ClassEmbedding(num_classes, 2 * channels) if num_classes else None
        )

    def _mean_and_log_std(
        self, shape: tuple[int, ...], condition: Array | None
    ) -> tuple[Array, Array]:
        h = jnp.zeros((*shape[:-1], 2 * shape[-1]))
        if self.prior is not None:
            h = self.prior(h)
        if self.embedding is not None:
            if condition is None:
                raise ValueError("expected a class label: this prior is conditional")
            h = h + self.embedding(condition).reshape((1,) * (h.ndim - 1) + (-1,))
        mean, log_std = jnp.split(h, 2, axis=-1)
        return mean, log_std

    def forward(
        self,
        x: Float[Array, "*shape channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "*shape channels"], Float[Array, ""]]:
        mean, log_std = self._mean_and_log_std(x.shape, condition)
        return (x - mean) * jnp.exp(-log_std), -jnp.sum(log_std)

    def inverse(
        self, z: Float[Array, "*shape channels"], condition: Array | None = None
    ) -> Float[Array, "*shape channels"]:
        mean, log_std = self._mean_and_log_std(z.shape, condition)
        return z * jnp.exp(log_std) + mean
