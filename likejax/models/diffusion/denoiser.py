"""The interface of denoisers, the networks that see noise or data in a noisy point."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple, cast

from flax import nnx
from jaxtyping import Array, Bool, Float
from typing_extensions import override

PredictionFunction = Callable[[Array, Array, Array | None], Array]
"""What a user may give: ``denoiser(z, gamma, condition)``."""


class Hints(NamedTuple):
    """What a denoiser may be told besides the noisy point.

    Attributes:
      flag: 1 for examples that were augmented, 0 for those that were not, ``(*batch,)``; ``None``
        if none was.
      present: Whether the condition of each example counts, ``(*batch,)``; ``None`` if all do.
      key: Key of the dropout and of what else is random in training; ``None`` for none.
      evidence: Logits of the integers that the point alone gives, for every entry by itself,
        ``(*batch, *entries, levels)``; ``None`` unless logits are predicted.
    """

    flag: Float[Array, "*batch"] | None = None
    present: Bool[Array, "*batch"] | None = None
    key: Array | None = None
    evidence: Float[Array, "*batch_and_entries levels"] | None = None


NO_HINTS = Hints()
"""Nothing was augmented, all conditions count, and there is no dropout."""


class Denoiser(nnx.Module, abc.ABC):
    """``prediction(z, gamma, condition)`` on any leading batch shape.

    A noise and a velocity have the shape of ``z``; logits have one for every value of an integer.
    """

    @abc.abstractmethod
    def __call__(
        self,
        z: Float[Array, "*batch_and_event"],
        gamma: Float[Array, "*batch"],
        condition: Array | None = None,
        hints: Hints = NO_HINTS,
    ) -> Float[Array, "*batch_and_prediction"]:
        """Computes the prediction.

        Args:
          z: Noisy points.
          gamma: Negative log signal-to-noise ratio of each.
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``; ``None`` for no
            condition, which guidance asks for.
          hints: Other facts about the input, such as its flag.
        """

    def in_loops(self) -> Denoiser:
        """Returns the denoiser in the form that is fast inside of loops of XLA."""
        return self


class PlainDenoiser(Denoiser):
    """A function ``denoiser(z, gamma, condition)`` of a user, which is given no hints.

    Args:
      function: The function, usually an ``nnx.Module``.
    """

    def __init__(self, function: PredictionFunction):
        self.function = function

    @override
    def __call__(
        self, z: Array, gamma: Array, condition: Array | None = None, hints: Hints = NO_HINTS
    ) -> Array:
        """Calls the function without the hints."""
        del hints
        return self.function(z, gamma, condition)


def as_denoiser(denoiser: object) -> Denoiser:
    """Returns a denoiser as it is, and wraps a function ``denoiser(z, gamma, condition)``.

    Args:
      denoiser: A ``Denoiser``, or a function of points ``z``, their ``gamma`` and the condition.

    Raises:
      TypeError: If it cannot be called.
    """
    if isinstance(denoiser, Denoiser):
        return denoiser
    if not callable(denoiser):
        raise TypeError(
            f"expected a denoiser (z, gamma, condition) -> array, got {type(denoiser).__name__}"
        )
    return PlainDenoiser(cast(PredictionFunction, denoiser))
