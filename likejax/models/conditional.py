"""The settings of what a model is conditioned on, the same for every family."""

from __future__ import annotations

import math

from likejax.settings import Settings


class Conditional(Settings):
    """Base of the configs of models that a class label or an array of floats can condition.

    Every config declares the two settings itself, behind those that it had before.

    Attributes:
      num_classes: Number of class labels of a conditional model; ``None`` if the condition is no
        label.
      condition_shape: Shape of a float condition; ``None`` if the condition is none.

    Raises:
      ValueError: If both are set, or the shape has no axes.

    Example:
      >>> import likejax as lj
      >>> lj.models.NSFConfig(condition_shape=(2, 3)).condition_size
      6
    """

    num_classes: int | None
    condition_shape: tuple[int, ...] | None

    def _check_together(self) -> None:
        name = type(self).__name__
        if self.num_classes is not None and self.condition_shape is not None:
            raise ValueError(
                f"expected {name}.num_classes or condition_shape, got both: a condition is a "
                "class label or an array of floats"
            )
        if self.condition_shape == ():
            raise ValueError(
                f"expected {name}.condition_shape to have at least one size, got (): a single "
                "number has the shape (1,), and class labels are set by num_classes"
            )

    @property
    def condition_size(self) -> int | None:
        """Number of classes, or of entries of a float condition; ``None`` if unconditional."""
        if self.condition_shape is not None:
            return math.prod(self.condition_shape)
        return self.num_classes

    @property
    def shape_of_condition(self) -> tuple[int, ...] | None:
        """Shape of one condition, ``()`` for a label; ``None`` if unconditional."""
        return self.condition_shape if self.num_classes is None else ()
