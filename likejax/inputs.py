"""Checks of arrays at a public boundary, before anything is computed from them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding
from jaxtyping import Array


def refuse_masked(name: str, value: object) -> None:
    """Refuses arrays with masked entries: numpy would drop the mask.

    Args:
      name: Name of the value in the message.
      value: Anything.
    """
    parts = value if isinstance(value, list | tuple) else [value]
    masked = sum(
        int(np.ma.count_masked(part)) for part in parts if isinstance(part, np.ma.MaskedArray)
    )
    masked += sum(part is np.ma.masked for part in parts)
    if masked:
        raise ValueError(
            f"expected {name} without masked entries, got {masked} of them; fill them "
            "(x.filled(value)) or leave out "
            "their rows"
        )


def as_array(name: str, value: object) -> Array | np.ndarray:
    """A numpy or JAX array of numbers from anything array-like.

    Args:
      name: Name of the value in the message.
      value: An array, a scalar, or nested sequences of numbers.

    Raises:
      TypeError: If it holds anything but numbers.
      ValueError: If it is ragged, or has masked entries.
    """
    refuse_masked(name, value)
    if isinstance(value, jax.Array):
        return _with_automatic_axes(value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"expected {name} to be an array of one shape: {error}") from error
    except TypeError as error:  # an object that looks like a sequence, such as a dataset
        raise TypeError(
            f"expected {name} to be an array of numbers, got {type(value).__name__}: {error}"
        ) from error
    if array.dtype.kind not in "biuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"expected {name} to be an array of numbers, got {type(value).__name__} of "
            f"{array.dtype}"
        )
    return array


def _with_automatic_axes(array: Array) -> Array:
    """The same array where it lies, its sharding for the compiler to propagate.

    With explicit axes JAX would refuse to combine it with keys and parameters of other shardings.
    """
    if isinstance(array, Tracer) or not isinstance(array.sharding, NamedSharding):
        return array
    mesh = array.sharding.mesh
    if not isinstance(mesh, Mesh) or mesh.are_all_axes_auto:
        return array
    axes = (AxisType.Auto,) * len(mesh.axis_names)
    automatic = Mesh(mesh.devices, mesh.axis_names, axis_types=axes)
    return jax.device_put(array, NamedSharding(automatic, array.sharding.spec))


def checked_floats(x: Array | np.ndarray, name: str = "x") -> Array | np.ndarray:
    """Floating-point values in the type that is computed in, float32 or better.

    Args:
      x: Array of floats, of any shape.
      name: Name of the array in messages.

    Returns:
      An array of the same shape, on the host if ``x`` is there.

    Raises:
      TypeError: If it holds anything but floats.
      ValueError: If a number is too large for the type.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"expected floating-point {name} for a continuous density, got {x.dtype}; for integer "
            "data wrap the "
            "density in Dequantized(density, levels), for others cast with x.astype('float32')"
        )
    widest = jnp.result_type(float)
    if isinstance(x, jax.Array):
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
    with np.errstate(over="ignore"):
        cast = x.astype(widest if x.dtype.itemsize > 4 else np.float32)
    lost = np.isinf(cast) & np.isfinite(x)
    if lost.any():
        place = tuple(int(i) for i in np.argwhere(lost)[0])
        raise ValueError(
            f"expected {name} within the range of {cast.dtype}, got {x[place]:g} at {place} (the "
            "last number is its "
            "column): rescale that column, or turn on JAX's 64 bits with "
            "jax.config.update('jax_enable_x64', True)"
        )
    return cast


def shape_advice(name: str, shape: tuple[int, ...], event_shape: tuple[int, ...]) -> str:
    """Returns what would give an array of images the shape of an event, or nothing if unclear.

    Args:
      name: Name of the array.
      shape: Its shape.
      event_shape: Shape of one example.

    Example:
      >>> from likejax.inputs import shape_advice
      >>> shape_advice("x", (4, 28, 28), (28, 28, 1))
      '; add the axis of channels, x[..., None]'
      >>> shape_advice("x", (4, 3, 32, 32), (32, 32, 3))
      '; channels come last, np.moveaxis(x, -3, -1)'
    """
    if len(event_shape) != 3:
        return ""
    height, width, channels = event_shape
    if channels == 1 and shape[-2:] == (height, width) and shape[-3:] != (1, height, width):
        return f"; add the axis of channels, {name}[..., None]"
    if shape[-3:] == (channels, height, width):
        return f"; {channels_last(name)}"
    return ""


def channels_last(name: str) -> str:
    """Returns the advice for images whose channels come first.

    Args:
      name: Name of the array of images.

    Example:
      >>> from likejax.inputs import channels_last
      >>> channels_last("x")
      'channels come last, np.moveaxis(x, -3, -1)'
    """
    return f"channels come last, np.moveaxis({name}, -3, -1)"


def checked_conditions(condition: Array | np.ndarray, shape: tuple[int, ...]) -> Any:
    """Finite floats in the type that is computed in; traced values cannot be examined.

    Args:
      condition: Float conditions, one or many.
      shape: Shape of one condition, for the message.

    Raises:
      TypeError: If they are no floats.
      ValueError: If one is NaN or infinite, or too large for the type.
    """
    if not jnp.issubdtype(condition.dtype, jnp.floating):
        raise TypeError(
            f"expected floats as conditions of shape {shape}, got {condition.dtype}; convert "
            "numbers with condition.astype('float32')"
        )
    values = checked_floats(condition, "condition")
    if isinstance(values, Tracer):
        return values
    on_host = isinstance(values, np.ndarray)
    with jax.ensure_compile_time_eval():  # known values inside somebody's jit are checked too
        is_finite = bool(np.isfinite(values).all() if on_host else jnp.isfinite(values).all())
    if not is_finite:
        raise ValueError(
            "expected finite conditions, got NaN or infinite entries; fill them, or leave out "
            "their examples"
        )
    return values


def checked_integers(x: Array | np.ndarray, levels: int) -> Array | np.ndarray:
    """Integers of ``0..levels-1``; booleans are the integers 0 and 1 of two levels.

    Args:
      x: Array of any shape.
      levels: Number of integer values.

    Returns:
      The same integers, those on the host in the type of datasets and samples, the smallest one
      without a sign: integers of other types would need programs of their own.

    Raises:
      TypeError: If it holds anything but integers.
      ValueError: If one is outside ``0..levels-1``; traced ones cannot be examined.
    """
    if x.dtype == bool and levels == 2:
        return x.astype(np.uint8)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(
            f"expected integers 0..{levels - 1} (uint8 for images), got {x.dtype}; pass the raw "
            "values: scaling and "
            "noise are inside the density"
        )
    if isinstance(x, Tracer) or (x.dtype == jnp.uint8 and levels == 256) or x.size == 0:
        return x
    low, high = _low_and_high(x)
    if low < 0 or high >= levels:
        raise ValueError(
            f"expected integers 0..{levels - 1} for a density with {levels} levels, got "
            f"{low}..{high}"
        )
    return x.astype(np.min_scalar_type(levels - 1)) if isinstance(x, np.ndarray) else x


def inside_levels(x: Array | np.ndarray, levels: int) -> Any:
    """Finds the integers in ``0..levels-1``, elementwise: traced values cannot be refused.

    Args:
      x: Integers, or the same numbers in floats, which a gradient can be taken by.
      levels: Number of integer values.

    Returns:
      Booleans of the shape of ``x``; a single true one where the type of ``x`` holds no others.
    """
    if jnp.issubdtype(x.dtype, jnp.floating):
        return (x >= 0) & (x <= levels - 1)
    limits = jnp.iinfo(x.dtype)
    if limits.min >= 0 and limits.max < levels:
        return jnp.ones((), bool)
    return (x >= 0) & (x < levels)


def numpy_of(values: object) -> Any:
    """Returns the namespace that computes with arrays: numpy on the host in float64, else JAX.

    Args:
      values: An array.
    """
    return jnp if isinstance(values, jax.Array) else np


def check_labels(labels: Array | np.ndarray, num_classes: int | None) -> None:
    """Checks that all labels are integers of ``0..num_classes-1``; traced ones cannot be examined.

    Args:
      labels: Class labels.
      num_classes: Number of classes; ``None`` if any integer is one.

    Raises:
      TypeError: If the labels are no integers.
      ValueError: If one is out of range.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        wanted = "integers" if num_classes is None else f"integers 0..{num_classes - 1}"
        raise TypeError(f"expected {wanted} as class labels, got {labels.dtype}")
    if num_classes is None or isinstance(labels, Tracer) or labels.size == 0:
        return
    low, high = _low_and_high(labels)
    if low < 0 or high >= num_classes:
        advice = (
            ": subtract 1 from labels that begin at 1" if (low, high) == (1, num_classes) else ""
        )
        wanted = f"expected class labels 0..{num_classes - 1} for a model of {num_classes} classes"
        raise ValueError(f"{wanted}, got {low}..{high}{advice}")


def _low_and_high(values: Array | np.ndarray) -> tuple[int, int]:
    with jax.ensure_compile_time_eval():  # known values inside somebody's jit are checked too
        return int(values.min()), int(values.max())
