"""The mixture of a label-conditional density over its classes."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from likejax.density import Density, Kind, check_density, combine_in_own_type, log_prob_of_draw
from likejax.inputs import as_array
from likejax.keys import KeyLike
from likejax.models.mixing import NO_DIFFUSION, log_mixture
from likejax.nn.modules import Buffer, replace
from likejax.settings import Count, checked

_TOLERANCE = 1e-4
"""Largest difference of the sum of a prior from 1: float32 rounds 1,000 classes to 1e-5."""


class ClassMixture(Density):
    """``p(x) = sum_y p(y) p(x | y)`` of a density of examples given their class label.

    The classes of an example are computed together (``jax.vmap``): work that does not depend on the
    label is done once, such as a Glow's, whose label enters at the top alone. The memory of a batch
    is up to that of ``classes`` batches, so a smaller ``batch_size`` helps where it is short.

    How the kinds combine:

    * ``EXACT`` gives ``EXACT``: ``log sum_y p(y) p(x | y)``.
    * ``BOUND`` gives ``BOUND``. A draw ``w_y`` of each class, all with one key, has
      ``E[w_y] = p(x | y)``, so ``sum_y p(y) w_y`` is an importance weight of the mixture.
    * ``ESTIMATE`` gives ``ESTIMATE``, which is at most ``log p(x)`` on average; see
      ``likejax.models.mixing.log_mixture``.

    Args:
      density: A density whose condition is a class label.
      log_prior: Log-probability of each class in nats, ``(classes,)``; ``None`` for equal classes.

    Raises:
      TypeError: If ``density`` is not one, or the prior no array of numbers.
      ValueError: If the condition of the density is no label, or the prior has another shape or
        does not sum to 1.

    Attributes:
      density: The density given the label.
      log_prior: Log-probability of each class, which is not trained.

    Example:
      >>> import likejax as lj
      >>> mixture = lj.models.ClassMixture(lj.models.NaiveBayes.fit(lj.load("digits")))
      >>> print(lj.evaluate(mixture, lj.load("digits", split="test")))
      bits/dim = 2.2702 ± 0.0123 (exact, n = 359, digits test)
    """

    def __init__(self, density: Density, log_prior: ArrayLike | None = None):
        check_density(density)
        if density.num_classes is None:
            raise ValueError(
                "expected a density whose condition is a class label (num_classes is set), got "
                f"{type(density).__name__} with num_classes=None: give its config num_classes"
            )
        self.density = density
        self.log_prior = Buffer(jnp.asarray(checked_log_prior(log_prior, density.num_classes)))
        self.event_shape = density.event_shape
        self.levels = density.levels

    @property
    def kind(self) -> Kind:
        """Kind of number of the density given the label."""
        return self.density.kind

    @property
    def sum_log_std(self) -> float | None:
        """``sum(log std)`` in nats of the data that the density standardizes inside, if it does."""
        return self.density.sum_log_std

    @property
    def differentiable(self) -> bool:
        """Whether the log-probability changes with ``x`` between integers too."""
        return self.density.differentiable

    def class_log_prob(
        self, x: ArrayLike, *, key: KeyLike | None = None, draws: int = 1
    ) -> Float[Array, "*batch classes"]:
        """``log p(x | y)`` of every class, without the prior.

        The keys of an example are the same for all classes, as in
        ``density.log_prob(x, key=key, condition=y)``, whose numbers these are.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          draws: Number of draws to combine for each class, as the kind allows.

        Returns:
          ``(*batch, classes)`` in nats.
        """
        draws = checked("draws", draws, Count)
        if self.kind is Kind.EXACT:
            key, draws = None, 1
        values = self._over_draws(_log_probs_of_draw, x, key=key, draws=draws)
        return combine_in_own_type(values, self.kind)

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        return log_mixture(lambda key: self._joint(x, key), self.kind, key)

    def _joint(self, x: Array, key: Array | None) -> Float[Array, " classes"]:
        """One draw of ``log p(y) + log p(x | y)`` of every class, of one example."""

        def of_class(label: Array) -> Array:
            log_prob = jnp.asarray(self.density._log_prob(x, key, label))
            return log_prob.astype(jnp.promote_types(log_prob.dtype, jnp.float32))

        return self.log_prior[...] + jax.vmap(of_class)(self.labels)

    @property
    def labels(self) -> Array:
        """All class labels, ``0..classes-1``."""
        return jnp.arange(len(self.log_prior[...]))

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        """Draws the class from the prior, at any temperature, and then an example of it."""
        label_key, example_key = jax.random.split(key)
        label = jax.random.categorical(label_key, self.log_prior[...])
        return self.density._draw(example_key, label, temperature)

    def why_not(self, query: str) -> str:
        """Returns why the mixture cannot have an optional query of the density given the label.

        Args:
          query: Name of the query, see ``Density.offers``.
        """
        if query == "diffusion" and self.density.offers(query):
            return NO_DIFFUSION.format("Take one class, lj.condition(density, label)")
        return super().why_not(query)

    def initialize(self, batch: ArrayLike, key: KeyLike) -> ClassMixture:
        """Returns a density whose data-dependent parameters fit ``batch``.

        Args:
          batch: Examples ``(n, *event_shape)`` of all classes.
          key: Key of the noise, if any.
        """
        return replace(self, density=self.density.initialize(batch, key))


def _log_probs_of_draw(
    mixture: ClassMixture, x: Array, key: Array | None, condition: None, draw: ArrayLike
) -> Float[Array, " classes"]:
    """One draw of ``log p(x | y)`` of one example for every class."""
    del condition

    def of_class(label: Array) -> Array:
        return log_prob_of_draw(mixture.density, x, key, label, draw)

    return jax.vmap(of_class)(mixture.labels)


def checked_log_prior(log_prior: ArrayLike | None, classes: int) -> Float[np.ndarray, " classes"]:
    """Returns the log-probabilities of classes, which sum to 1.

    Args:
      log_prior: Log-probabilities ``(classes,)`` in nats, minus infinity for an impossible class;
        ``None`` for equal classes.
      classes: Number of classes.

    Raises:
      TypeError: If they are no floats.
      ValueError: If there are more or fewer, or they do not sum to 1.

    Example:
      >>> from likejax.models.class_mixture import checked_log_prior
      >>> checked_log_prior(None, 2).round(4).tolist()
      [-0.6931, -0.6931]
    """
    if log_prior is None:
        return np.full(classes, -math.log(classes))
    values = np.asarray(as_array("log_prior", log_prior))
    if values.shape != (classes,):
        raise ValueError(
            f"expected log_prior of shape ({classes},), one for each class, got {values.shape}"
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(
            f"expected floats as log_prior, got {values.dtype}: these are log-probabilities in "
            "nats, np.log(frequencies)"
        )
    values = values.astype(np.float64)
    total = np.exp(values).sum()
    if not abs(total - 1) <= _TOLERANCE:
        advice = ""
        if (values >= 0).all() and abs(values.sum() - 1) <= _TOLERANCE:
            advice = ": these are probabilities, pass their logarithms, np.log(prior)"
        raise ValueError(
            "expected log_prior of probabilities that sum to 1, got log-probabilities whose "
            f"exponentials sum to {total:.6g}{advice}"
        )
    return values - math.log(total)
