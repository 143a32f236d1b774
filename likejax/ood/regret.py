"""Likelihood regret: how much better the posterior of one example could have been."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol, cast, runtime_checkable

from jaxtyping import Array, ArrayLike, Float, Key

from likejax.density import Density
from likejax.keys import KeyLike
from likejax.ood.features import Batch, Densities, Feature, OfDraws, Values
from likejax.ood.score import Score
from likejax.settings import Count, Positive


@runtime_checkable
class Regretful(Protocol):
    """A density with a posterior that can be fitted to one example, such as a VAE.

    Example:
      >>> import likejax as lj
      >>> isinstance(lj.models.Uniform((2,)), lj.ood.Regretful)
      False
    """

    def regret(
        self,
        x: ArrayLike,
        *,
        key: KeyLike,
        steps: int = 100,
        learning_rate: float = 0.05,
        draws: int = 16,
    ) -> Float[Array, "*batch"]:
        """Returns what the bound gains if the posterior is fitted to each example, in nats.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          steps: Steps of the optimizer.
          learning_rate: Learning rate.
          draws: Number of draws of the bounds before and after.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Regret(OfDraws):
    """Gain of the bound by fitting the posterior to the example, in nats; see ``VAE.regret``.

    Example:
      >>> import likejax as lj
      >>> lj.ood.Regret(steps=20)
      Regret(steps=20, learning_rate=0.05, draws=16)
    """

    steps: Count = 100
    """Steps of Adam for each example."""
    learning_rate: Positive = 0.05
    """Learning rate of the moments of the posterior."""
    draws: Count = 16
    """Number of draws of the bounds before and after."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Values:
        """Computes the gain of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example.
        """
        density = cast(Regretful, densities["density"])
        assert keys is not None
        return density.regret(
            x, key=keys, steps=self.steps, learning_rate=self.learning_rate, draws=self.draws
        )


@dataclasses.dataclass(frozen=True)
class LikelihoodRegret(Score):
    """Score ``s = L(x; q*_x) - L(x; q_x)`` in nats: the regret of a VAE's inference network.

    The network has learned to infer latents of inside examples. For an outside one a posterior of
    its own is much better. Each example takes as many gradients of the decoder as there are steps.

    References:
      Xiao, Yan and Amit, 2020, Likelihood regret: an out-of-distribution detection score for
      variational auto-encoder, arXiv:2003.02977, of which this is the form that fits the moments of
      the posterior instead of the weights of the network.

    Example:
      >>> import likejax as lj
      >>> lj.ood.LikelihoodRegret(steps=20).label
      'likelihood regret'
    """

    name: ClassVar[str] = "likelihood regret"

    steps: Count = 100
    """Steps of Adam for each example."""
    learning_rate: Positive = 0.05
    """Learning rate of the moments of the posterior."""
    draws: Count = 16
    """Number of draws of the bounds before and after."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The gain of the bound."""
        return (Regret(self.steps, self.learning_rate, self.draws),)

    def check(self, density: Density) -> None:
        """Raises a ValueError unless the density has a posterior to fit.

        Args:
          density: Density that is scored.
        """
        if not density.offers("regret"):
            raise ValueError(
                "expected a VAE, whose posterior can be fitted to an example, got "
                f"{type(density).__name__}: lj.ood.Typicality() takes any density"
            )
