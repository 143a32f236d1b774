"""Steps: transforms by name, as they follow a dataset's name, ``omniglot+invert+resize:28x28``.

A step is the name of a transform and its arguments behind colons, in the order of the transform's
parameters. A height and a width are one argument, ``28x28``. The table of steps holds functions
only: their usage is read from the signatures.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from likejax.data import distortions, transforms
from likejax.data.dataset import Dataset
from likejax.data.text import recut
from likejax.legacy import modern
from likejax.names import meant

Transform = Callable[..., Any]

STEPS: dict[str, Transform] = {
    "invert": transforms.invert,
    "gray": transforms.gray,
    "color": transforms.color,
    "transpose": transforms.transpose,
    "levels": transforms.reduce_levels,
    "pad": transforms.pad,
    "crop": transforms.crop,
    "resize": transforms.resize,
    "binarize": transforms.binarize,
    "mutate": transforms.mutate,
    "continuous": transforms.continuous,
    "chars": recut,
    "hflip": distortions.hflip,
    "vflip": distortions.vflip,
    "rotate": distortions.rotate,
    "contrast": distortions.contrast,
    "brightness": distortions.brightness,
    "blur": distortions.blur,
    "noise": distortions.add_noise,
}
"""From the name of a step to its transform."""


class Argument(NamedTuple):
    """An argument of a step; it fills one parameter of its transform, or a height and a width.

    Attributes:
      parameters: Names of the parameters that it fills.
      kind: Type of their values.
      required: Whether a step must have it.
    """

    parameters: tuple[str, ...]
    kind: type
    required: bool

    def __str__(self) -> str:
        word = "x".join(name.upper() for name in self.parameters)
        return f":{word}" if self.required else f"[:{word}]"

    def values(self, text: str) -> dict[str, Any]:
        """Values of the parameters.

        Args:
          text: Text of the argument, such as ``32x32`` for a height and a width.

        Returns:
          The value of each parameter, by name.

        Raises:
          ValueError: If the text does not hold one value of the right type for each.
        """
        words = text.split("x") if len(self.parameters) > 1 else [text]
        wanted = str(self).strip("[]:")
        if len(words) != len(self.parameters):
            raise ValueError(f"got {text!r} for {wanted}")
        try:
            values = [self.kind(word) for word in words]
        except ValueError as error:
            raise ValueError(f"got {text!r} for {wanted}") from error
        return dict(zip(self.parameters, values, strict=True))


def arguments_of(transform: Transform) -> list[Argument]:
    """The arguments of a step, in order, from the signature of its transform.

    Args:
      transform: One of the functions in ``STEPS``, whose first parameter is the dataset.

    Example:
      >>> from likejax.data import steps, transforms
      >>> [str(argument) for argument in steps.arguments_of(transforms.pad)]
      [':HEIGHTxWIDTH', '[:VALUE]']
    """
    hints = typing.get_type_hints(transform)
    _, *parameters = inspect.signature(transform).parameters.values()
    found: list[Argument] = []
    for parameter in parameters:
        name = parameter.name
        if name == "width":  # belongs to the height before it
            found[-1] = found[-1]._replace(parameters=("height", "width"))
            continue
        required = parameter.default is inspect.Parameter.empty
        found.append(Argument((name,), hints[name], required))
    return found


def usage(name: str) -> str:
    """The written form of a step.

    Args:
      name: Name of a step.

    Example:
      >>> from likejax.data import steps
      >>> steps.usage("resize")
      'resize:HEIGHTxWIDTH[:FILTER]'
    """
    return name + "".join(str(argument) for argument in arguments_of(STEPS[name]))


def apply_steps(dataset: Dataset, steps: str | Sequence[str]) -> Dataset:
    """Applies transforms by their names, in order; each is noted in the provenance.

    Args:
      dataset: Integer images, a table, or a text.
      steps: Steps in a row, as they follow a dataset's name, ``"gray+resize:8x8"``; or a list of
        them. There are ``invert``, ``gray``, ``color``, ``transpose``, ``levels:LEVELS``,
        ``pad:HEIGHTxWIDTH[:VALUE]``, ``crop:HEIGHTxWIDTH``, ``resize:HEIGHTxWIDTH[:FILTER]``,
        ``binarize:SEED``, ``mutate:RATE:SEED``, ``continuous`` for tables, ``chars:LENGTH`` for
        texts, and the distortions
        ``hflip``, ``vflip``, ``rotate:DEGREES[:FILTER][:VALUE]``, ``contrast:FACTOR``,
        ``brightness:SHIFT``, ``blur:DEVIATION`` and ``noise:DEVIATION[:SEED]``.

    Returns:
      The transformed dataset.

    Raises:
      ValueError: If a step is unknown, is not written as its usage says, or does not fit the data.

    Example:
      >>> import likejax as lj
      >>> photographs = lj.load("photographs", split="test")
      >>> lj.data.apply_steps(photographs, "gray+resize:8x8+levels:17")
      Dataset('photographs', test, n=350, (8, 8, 1) uint8, 17 levels)
    """
    each = steps.split("+") if isinstance(steps, str) else steps
    for step in each:
        dataset = _applied(dataset, step)
    return dataset


def _applied(dataset: Dataset, step: str) -> Dataset:
    written, *texts = step.split(":")
    name = modern(written)
    if name not in STEPS:
        known = ", ".join(usage(each) for each in STEPS)
        near = meant(name, STEPS)
        raise ValueError(f"unknown step {step!r} behind a dataset's name; there are {known}{near}")
    arguments = arguments_of(STEPS[name])
    least = sum(argument.required for argument in arguments)
    try:
        if not least <= len(texts) <= len(arguments):
            raise ValueError(f"got {len(texts) or 'no'} argument{'s' if len(texts) > 1 else ''}")
        values: dict[str, Any] = {}
        for argument, text in zip(arguments, texts, strict=False):
            values |= argument.values(text)
        return STEPS[name](dataset, **values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"step {step!r} (expected {usage(name)}): {error}") from error
