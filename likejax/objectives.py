"""Training objectives: callables ``(density, batch, key, step) -> (loss, metrics)``.

Any callable of that form is an objective. Those here are frozen dataclasses that weight the named
parts of a density's ``terms``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from likejax.data.batches import Batch
from likejax.density import Density, Terms, bits_per_dim, integer_dtype
from likejax.settings import CountOrZero, NonNegative, Settings, checked

Metrics = Mapping[str, Float[Array, ""]]
"""Scalars to log, by name."""

Pairs = tuple[tuple[str, float], ...]
"""Names with their weights, in a form that can be hashed."""


@dataclasses.dataclass(frozen=True)
class NLL(Settings):
    """Mean negative log-likelihood per dimension, in bits, of one draw per example.

    ``loss = mean(-log_prob) / (D ln 2) + sum_i weights[i] * mean(part_i)``. Elementwise parts are
    summed over an example. A part whose name ends in ``log_prob`` is in nats and enters in bits,
    ``mean(part_i) / ln 2``, like the loss itself: the log-likelihood of a class label, say. If the
    examples are weighted, with weights that average 1 over the data, the means are those of
    ``weight * value``.

    Args:
      weights: Weight of each part, by its name in ``density.terms``. Negative for what should
        become large, such as a log-likelihood.

    References:
      The official Glow code (``class_log_prob``, with ``weight_y = 0.01``). Finlay, Jacobsen,
      Nurbekyan and Oberman, 2020, How to train your neural ODE, arXiv:2002.02798
      (``kinetic_energy`` and ``jacobian_norm`` of a continuous flow).

    Example:
      >>> import likejax as lj
      >>> lj.NLL(weights={"class_log_prob": -0.01})
      NLL(weights=(('class_log_prob', -0.01),))
    """

    weights: Pairs | Mapping[str, float] = ()
    """Weight of each named part of the terms; a mapping becomes a tuple of pairs."""

    def __post_init__(self):
        weights = self.weights
        if isinstance(weights, Mapping):
            weights = tuple(weights.items())
        object.__setattr__(self, "weights", checked("NLL.weights", weights, Pairs))
        super().__post_init__()

    def _check_together(self) -> None:
        names = [name for name, _ in self._pairs()]
        if len(set(names)) < len(names):
            raise ValueError(f"expected one weight for each part, got NLL.weights of {names}")

    def __call__(
        self, density: Density, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Metrics]:
        """The loss of a batch, and its metrics for the log.

        Args:
          density: Density to train.
          batch: Examples, with their conditions and weights if they have any.
          key: One key, or the keys of the examples.
          step: Number of the step; not used.

        Returns:
          The loss in bits per dimension, and the mean of every term.

        Raises:
          ValueError: If the terms lack a part that has a weight.
        """
        del step
        terms = density.terms(batch.x, key=key, condition=batch.condition)
        self._check_parts(density, terms.parts)
        metrics = _means(terms, batch)
        loss = bits_per_dim(metrics["log_prob"], density.event_shape)
        for name, weight in self._pairs():
            if weight:
                loss = loss + _in_bits(name, weight * metrics[name])
        return loss, jax.lax.stop_gradient(metrics)

    def check(self, density: Density) -> None:
        """Checks before training that the density has the parts that are weighted.

        Args:
          density: Density to train, or its structure alone (from ``jax.eval_shape``).

        Raises:
          ValueError: If it lacks one.
        """
        if any(weight for _, weight in self._pairs()):
            self._check_parts(density, part_names(density))

    def _pairs(self) -> Pairs:
        assert isinstance(self.weights, tuple)
        return self.weights

    def _check_parts(self, density: Density, parts: Iterable[str]) -> None:
        known = sorted(parts)
        for name, weight in self._pairs():
            if weight and name not in known:
                available = f"they have {', '.join(known)}" if known else "they have no parts"
                raise ValueError(
                    f"expected NLL.weights of parts that the terms of {_named(density)} have, got "
                    f"{name!r} with {weight}: its terms have no part {name}; {available}"
                )


@dataclasses.dataclass(frozen=True)
class ELBO(Settings):
    """Negative evidence lower bound in nats, with warm-up and free nats.

    ``loss = mean(-log p(x | z)) + beta(step) * sum_i KL_i``, from the parts ``reconstruction`` and
    ``kl_1``, ``kl_2``, ... of the density's terms. ``beta`` rises linearly over the warm-up. Below
    a floor each ``KL_i`` costs the same, so that there is no reason to make it smaller.

    The floor ``f`` is one per ``layer``, ``max(mean_x KL_i, f)``, or one per ``element``: every
    element of a latent of ``C`` channels gets ``f / C``, as in the official code of Havtorn et al.
    There positions do not share the budget, which is ``f`` nats at each.

    References:
      Kingma and Welling, 2014, arXiv:1312.6114. Sonderby et al., 2016, Ladder variational
      autoencoders, arXiv:1602.02282 (warm-up). Kingma et al., 2016, arXiv:1606.04934, appendix C.8
      (free bits). Higgins et al., 2017 (beta). Havtorn, Frellsen, Hauberg and Maaloe, 2021,
      arXiv:2102.08248.

    Example:
      >>> import likejax as lj
      >>> lj.ELBO(warmup_steps=1000, free_nats=2.0).kl
      'analytic'
    """

    beta: NonNegative = 1.0
    """Weight of the divergences after warm-up; 1 for the bound itself."""
    warmup_steps: CountOrZero = 0
    """Steps over which the weight rises linearly from zero."""
    free_nats: NonNegative = 0.0
    """Floor under the divergence of each latent."""
    free_steps: CountOrZero | None = None
    """Steps after which the floor begins to sink; ``None`` if it stays."""
    free_fade_steps: CountOrZero = 0
    """Steps over which the floor sinks to zero."""
    free_nats_per: Literal["layer", "element"] = "layer"
    """Whether the floor is under a latent as a whole, or under each of its elements."""
    kl: Literal["analytic", "sampled"] = "analytic"
    """Divergences in closed form given the latents above, or estimates at the drawn values."""

    def _check_together(self) -> None:
        if self.free_steps == self.free_fade_steps == 0:
            raise ValueError(
                "expected ELBO.free_steps=None for a floor that stays, got 0: None, not 0, turns "
                "it off"
            )
        if self.free_steps is None and self.free_fade_steps:
            raise ValueError(
                f"expected ELBO.free_steps for free_fade_steps={self.free_fade_steps}, got None: "
                "free_steps=0 lets the floor sink from the first step on"
            )

    def __call__(
        self, density: Density, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Metrics]:
        """The loss of a batch, and its metrics for the log.

        Args:
          density: Density to train.
          batch: Examples, with their weights if they have any.
          key: One key, or the keys of the examples.
          step: Number of the step, for the warm-up.

        Returns:
          The loss in nats, and the means of ``log_prob``, ``reconstruction`` and every ``kl_i``.

        Raises:
          TypeError: If the density's terms have no such parts.
        """
        terms = density.terms(batch.x, key=key, condition=batch.condition)
        self._check_parts(density, terms.parts)
        names = ["reconstruction", *_numbered("kl", terms.parts)]
        logged = Terms(terms.log_prob, {name: terms.parts[name] for name in names})
        weight = 1.0 if batch.weight is None else batch.weight
        loss = self.loss(terms, step, weight)
        return loss, jax.lax.stop_gradient(_means(logged, batch))

    def check(self, density: Density) -> None:
        """Checks before training that the density has latents.

        Args:
          density: Density to train, or its structure alone (from ``jax.eval_shape``).

        Raises:
          TypeError: If its terms lack a reconstruction and divergences.
        """
        self._check_parts(density, part_names(density))

    def _check_parts(self, density: Density, parts: Iterable[str]) -> None:
        wanted = {"reconstruction", "kl_1"}
        if self.kl == "sampled":
            wanted.add("sampled_kl_1")
        if not wanted <= set(parts):
            raise TypeError(
                f"expected terms with the parts {', '.join(sorted(wanted))} for the ELBO "
                f"objective, got {_named(density)} without them: use NLL"
            )

    def loss(self, terms: Terms, step: Array, weight: ArrayLike = 1.0) -> Float[Array, ""]:
        """Returns the loss of the terms of a batch.

        Args:
          terms: Terms with the parts ``reconstruction`` and ``kl_i``, the latter elementwise.
          step: Number of the step.
          weight: Weight of each example.
        """
        floor = self.free_nats * self._floor_left(step)
        divergence = jnp.zeros(())
        family = "kl" if self.kl == "analytic" else "sampled_kl"
        for name in _numbered(family, terms.parts):
            kl = terms.parts[name]
            if self.free_nats and self.free_nats_per == "element":
                channels = kl.shape[-1]
                kl = jnp.maximum(kl, (floor / channels).astype(kl.dtype))
            each = Terms(terms.log_prob, {name: kl}).per_example()[name]
            mean = jnp.mean(weight * each)
            if self.free_nats and self.free_nats_per == "layer":
                mean = jnp.maximum(mean, floor.astype(mean.dtype))
            divergence = divergence + mean
        reconstruction = jnp.mean(weight * terms.parts["reconstruction"])
        return -reconstruction + self._beta(step) * divergence

    def _beta(self, step: Array) -> ArrayLike:
        """The weight of the divergences at a step."""
        if not self.warmup_steps:
            return self.beta
        return self.beta * jnp.clip(step / self.warmup_steps, 0, 1)

    def _floor_left(self, step: Array) -> Array:
        """The part of the floor that is left: 1, then sinking to 0."""
        if self.free_steps is None:
            return jnp.ones(())
        return 1.0 - jnp.clip((step - self.free_steps) / max(1, self.free_fade_steps), 0, 1)


def part_names(density: Density) -> set[str]:
    """Returns the names of the parts of a density's terms; nothing is computed.

    Args:
      density: A density, or its structure alone (from ``jax.eval_shape``).
    """
    dtype = jnp.result_type(float) if density.levels is None else integer_dtype(density.levels)
    x = jax.ShapeDtypeStruct((1, *density.event_shape), dtype)
    condition = density.condition_form
    if condition is not None:
        condition = jax.ShapeDtypeStruct((1, *condition.shape), condition.dtype)

    def parts(density: Density, x: Array, condition: Array | None) -> Mapping[str, Array]:
        return density.terms(x, key=jax.random.key(0), condition=condition).parts

    return set(jax.eval_shape(parts, density, x, condition))


def _means(terms: Terms, batch: Batch) -> dict[str, Float[Array, ""]]:
    """The weighted mean of the log-probability and of every part."""
    weight = 1.0 if batch.weight is None else batch.weight
    values = {"log_prob": terms.log_prob, **terms.per_example()}
    return {name: jnp.mean(weight * value) for name, value in values.items()}


def _in_bits(name: str, value: Float[Array, ""]) -> Float[Array, ""]:
    """A weighted part as it enters the loss: log-probabilities in bits, others as they are."""
    return -bits_per_dim(value, ()) if name.endswith("log_prob") else value


def _numbered(family: str, parts: Mapping[str, Array]) -> list[str]:
    """The names ``family_1``, ``family_2``, ... among parts, in the order of their numbers."""
    names = []
    while f"{family}_{len(names) + 1}" in parts:
        names.append(f"{family}_{len(names) + 1}")
    return names


def _named(density: Density) -> str:
    """The class of a density, inside the wrapper that makes it one of integers."""
    inner = getattr(density, "density", None)
    name = type(density).__name__
    return name if inner is None else f"{name}({type(inner).__name__})"
