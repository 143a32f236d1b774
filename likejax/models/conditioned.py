"""A conditional density at one condition, as a density without a condition."""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from likejax.bijections.bijection import Latent
from likejax.density import (
    Density,
    Diffusion,
    Kind,
    Moments,
    Statistics,
    Terms,
    check_density,
)
from likejax.keys import KeyLike
from likejax.nn.modules import Buffer, replace


@runtime_checkable
class _WithLatents(Protocol):
    """A density that maps examples to latents and back."""

    def encode(self, x: ArrayLike, **arguments: Any) -> Latent: ...

    def decode(self, z: Latent, **arguments: Any) -> Array: ...


class _WithBounds(Protocol):
    """A density with a hierarchy of latents."""

    depth: int

    def log_prob_above(self, x: ArrayLike, k: int | None, **arguments: Any) -> Array: ...

    def regret(self, x: ArrayLike, **arguments: Any) -> Array: ...


class Conditioned(Density):
    """``p(x | c)`` of a conditional density at one fixed condition ``c``; made by ``lj.condition``.

    It is an ordinary density without a condition, of the kind of the conditional one, and draws the
    same numbers from the same keys. Training it fits the conditional density at this condition.

    ``lj.save`` writes it with its condition. It has no config, so it is restored into a density of
    the same structure, ``lj.restore(directory, density=lj.condition(inner, any_value))``, which
    brings back the parameters and the condition that were saved. The other way is to save the
    conditional density and to fix the condition again after restoring.

    Args:
      density: A conditional density.
      value: One condition: a class label, or floats of shape ``density.condition_shape``.

    Raises:
      TypeError: If ``density`` is not one, or the condition is of another type.
      ValueError: If the density is unconditional, or the condition has another shape, is out of
        range or not finite.

    Attributes:
      density: The conditional density.
      value: The condition, which is not trained.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.MAFConfig(dimensions=2, depth=1, width=4, num_classes=3)
      >>> second = lj.models.Conditioned(lj.build(config, key=0), 1)
      >>> second.sample(jax.random.key(1), 5).shape
      (5, 2)
    """

    def __init__(self, density: Density, value: ArrayLike):
        check_density(density)
        if density.condition_shape is None:
            raise ValueError(
                f"expected a conditional density, {type(density).__name__} is unconditional: use "
                "it as it is"
            )
        self.density = density
        self.value = Buffer(jnp.asarray(density.checked_value(value)))
        self.event_shape = density.event_shape
        self.levels = density.levels

    @property
    def kind(self) -> Kind:
        """Kind of number of the conditional density."""
        return self.density.kind

    @property
    def sum_log_std(self) -> float | None:
        """``sum(log std)`` in nats of the data that the density standardizes inside, if it does."""
        return self.density.sum_log_std

    @property
    def differentiable(self) -> bool:
        """Whether the log-probability changes with ``x`` between integers too."""
        return self.density.differentiable

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        return self.density._log_prob(x, key, self.value[...])

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        return self.density._terms(x, key, self.value[...])

    def _statistics(self, x: Array, key: Array | None, condition: Array | None) -> Statistics:
        return self.density._statistics(x, key, self.value[...])

    def offers(self, query: str) -> bool:
        """Returns whether the density inside has a query.

        Args:
          query: Name of the query, see ``Density.offers``.
        """
        return self.density.offers(query)

    def why_not(self, query: str) -> str:
        """Returns why the density inside cannot have a query.

        Args:
          query: Name of the query, see ``Density.offers``.
        """
        return self.density.why_not(query)

    @property
    def depth(self) -> int:
        """Number of latents of the density inside; 0 if it has no hierarchy of them."""
        return cast(_WithBounds, self.density).depth if self.offers("log_prob_above") else 0

    def log_prob_above(
        self, x: ArrayLike, k: int | None = None, *, key: KeyLike, **options: Any
    ) -> Float[Array, "..."]:
        """``L^{>k}`` under this condition, as the conditional density returns it.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          k: Number of lowest latents that are not inferred; ``None`` for all numbers.
          key: Key or keys, as for ``log_prob``.
          **options: Draws and replacement, as the conditional density takes them.

        Returns:
          ``(*batch,)`` in nats, or ``(depth, *batch)`` for all numbers.

        Raises:
          TypeError: If the conditional density has no hierarchy of latents.
        """
        if not self.offers("log_prob_above"):
            raise self._lacks("log_prob_above")
        inner = cast(_WithBounds, self.density)
        return inner.log_prob_above(x, k, key=key, condition=self.value[...], **options)

    def regret(self, x: ArrayLike, *, key: KeyLike, **options: Any) -> Float[Array, "*batch"]:
        """Likelihood regret under this condition, as the conditional density returns it.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          **options: Steps, learning rate and draws, as the conditional density takes them.

        Returns:
          ``(*batch,)`` in nats.

        Raises:
          TypeError: If the conditional density has no posteriors to fit.
        """
        if not self.offers("regret"):
            raise self._lacks("regret")
        inner = cast(_WithBounds, self.density)
        return inner.regret(x, key=key, condition=self.value[...], **options)

    def _white_latents(
        self, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Array, ...]:
        return self.density._white_latents(x, key, self.value[...])

    def _embed(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, " d"]:
        return self.density._embed(x, key, self.value[...])

    def _log_prob_map(self, x: Array, condition: Array | None) -> Float[Array, "*event"]:
        return self.density._log_prob_map(x, self.value[...])

    def _token_moments(self, x: Array, condition: Array | None) -> Moments:
        return self.density._token_moments(x, self.value[...])

    def _diffusion(self, x: Array, key: Array | None, condition: Array | None) -> Diffusion:
        return self.density._diffusion(x, key, self.value[...])

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        return self.density._draw(key, self.value[...], temperature)

    def initialize(self, batch: ArrayLike, key: KeyLike) -> Conditioned:
        """Returns a density whose data-dependent parameters fit ``batch``.

        Args:
          batch: Examples ``(n, *event_shape)`` of this condition.
          key: Key of the noise, if any.
        """
        return replace(self, density=self.density.initialize(batch, key))

    def encode(self, x: ArrayLike, *, key: KeyLike | None = None) -> Latent:
        """All latents of ``x`` under this condition, as the conditional density returns them.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key of the noise, for a density on integers.

        Returns:
          Latents with leading axes ``batch``.

        Raises:
          TypeError: If the conditional density has no latents.
        """
        keys = {} if key is None else {"key": key}
        return self._with_latents.encode(x, condition=self.value[...], **keys)

    def decode(self, z: Latent) -> Array:
        """The data of latents ``z``, as ``encode`` returned them.

        Args:
          z: Latents with leading axes ``batch``.

        Returns:
          Examples ``(*batch, *event_shape)``.

        Raises:
          TypeError: If the conditional density has no latents.
        """
        return self._with_latents.decode(z, condition=self.value[...])

    @property
    def _with_latents(self) -> _WithLatents:
        if not isinstance(self.density, _WithLatents):
            raise TypeError(
                "expected a conditional density with latents to encode or decode with, got "
                f"{type(self.density).__name__}, which has none"
            )
        return cast(_WithLatents, self.density)

    def _facts(self) -> dict[str, Any]:
        value = getattr(self, "value", None)  # a density that is not complete is shown too
        return super()._facts() | {"condition": "not set" if value is None else value[...]}


def condition(density: Density, value: ArrayLike) -> Conditioned:
    """Fixes the condition of a conditional density.

    Args:
      density: A conditional density, such as one of images given their class.
      value: One condition: a class label, or floats of shape ``density.condition_shape``.

    Returns:
      ``p(x | value)``: a density without a condition, for ``lj.evaluate``, ``sample``, ``lj.ood``
      and whatever else takes one.

    Raises:
      TypeError: If ``density`` is not one, or the condition is of another type.
      ValueError: If the density is unconditional, or the condition has another shape, is out of
        range or not finite.

    Example:
      >>> import likejax as lj
      >>> digits, test = lj.load("digits"), lj.load("digits", split="test")
      >>> threes = lj.condition(lj.models.NaiveBayes.fit(digits), 3)
      >>> print(lj.evaluate(threes, test[test.labels == 3]))
      bits/dim = 2.2381 ± 0.0502 (exact, n = 32, digits test)
    """
    return Conditioned(density, value)
