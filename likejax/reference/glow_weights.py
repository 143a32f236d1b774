"""Weights of the official Glow code as a likejax density."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from likejax.bijections.actnorm import ActNorm
from likejax.bijections.conv1x1 import Conv1x1, Conv1x1LU, Permutation
from likejax.bijections.coupling import AdditiveCoupling, AffineCoupling
from likejax.bijections.split import Split, TopPrior
from likejax.models import build
from likejax.models.dequantize import Dequantized
from likejax.models.glow import GlowConfig
from likejax.nn.repeat import for_backend, unstack
from likejax.reference.checkpoints import Weights, tensorflow_variables
from likejax.reference.weights import check_names, fill, places


def official_names(density: Dequantized) -> Iterator[tuple[str, str]]:
    """Yields the dotted name of every array of a Glow and its name in the official checkpoint.

    The official names are ``LEVEL.STEP.actnorm_center.b``, ``LEVEL.STEP.f1.l_1.W``,
    ``poolLEVEL.conv.W``, ``prior.p.W``, ``prior.y_emb.W``, ``classifier.W`` and so on;
    ``LEVEL.STEP.invconv.W`` is a 1x1 convolution and ``LEVEL.STEP.shuffle.indices`` a permutation.

    Args:
      density: Glow with unstacked steps, built from its config.
    """
    config = density.config
    assert isinstance(config, GlowConfig)
    kinds = (ActNorm, (Conv1x1, Conv1x1LU, Permutation), (AffineCoupling, AdditiveCoupling))
    steps = zip(*(places(density, kind) for kind in kinds), strict=True)
    for i, (actnorm, permutation, coupling) in enumerate(steps):
        theirs = f"{i // config.depth}.{i % config.depth}"
        yield f"{actnorm}.affine.bias", f"{theirs}.actnorm_center.b"
        yield f"{actnorm}.affine.log_scale", f"{theirs}.actnorm_scale.logs"
        for name, official in _PERMUTATION[config.permutation].items():
            yield f"{permutation}.{name}", f"{theirs}.{official}"
        yield from _coupling_names(f"{coupling}.network", f"{theirs}.f1")
    for level, split_prior in enumerate(places(density, Split)):
        yield from _zero_linear_names(f"{split_prior}.prior", f"pool{level}.conv")
    (top,) = places(density, TopPrior)
    if config.learned_prior:
        yield from _zero_linear_names(f"{top}.prior", "prior.p")
    if config.num_classes is not None:
        yield from _zero_linear_names(f"{top}.embedding.linear", "prior.y_emb")
        yield from _zero_linear_names("density.classifier", "classifier")


def _coupling_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for layer, official in (("first", "l_1"), ("second", "l_2")):
        yield f"{ours}.{layer}.kernel", f"{theirs}.{official}.W"
        yield f"{ours}.{layer}_affine.bias", f"{theirs}.{official}.actnorm_center.b"
        yield f"{ours}.{layer}_affine.log_scale", f"{theirs}.{official}.actnorm_scale.logs"
    yield from _zero_linear_names(f"{ours}.last", f"{theirs}.l_last")


def _zero_linear_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.linear.kernel", f"{theirs}.W"
    yield f"{ours}.bias", f"{theirs}.b"
    yield f"{ours}.log_scale", f"{theirs}.logs"


_LU = {"permutation": "P", "lower": "L", "upper": "U", "log_scale": "log_S", "sign": "sign_S"}
_PERMUTATION: dict[str, dict[str, str]] = {
    "conv1x1": {"weight": "invconv.W"},
    "conv1x1_lu": {ours: f"invconv.{theirs}" for ours, theirs in _LU.items()},
    "reverse": {},
    "shuffle": {"order": "shuffle.indices"},
}


def glow_arrays(
    checkpoint: Mapping[str, Any], *, weights: Weights = "last"
) -> dict[str, np.ndarray]:
    """Returns the arrays for ``glow`` from the variables of an official checkpoint.

    TensorFlow reads such a checkpoint, ``LOGDIR/model_best_loss.ckpt`` for example::

        reader = tf.train.load_checkpoint(path)
        checkpoint = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        density = likejax.reference.glow(likejax.reference.glow_arrays(checkpoint), config)

    Its variables are ``model/LEVEL/STEP/actnorm_center/b``, ``model/poolLEVEL/conv/W``,
    ``model/prior/p/W``, ``model/classifier/W`` and so on.

    Args:
      checkpoint: Arrays by variable name.
      weights: Weights of the last step, as the official code evaluates them, or their moving
        average.

    Raises:
      ValueError: If the checkpoint holds no such variables.
    """
    variables = tensorflow_variables(checkpoint, weights)
    return {name.replace("/", "."): value for name, value in variables.items()}


def glow(arrays: Mapping[str, Any], config: GlowConfig) -> Dequantized:
    """Returns the density of the official weights.

    A permutation by ``shuffle`` is the array ``LEVEL.STEP.shuffle.indices``: output channel ``i``
    is input channel ``indices[i]``. Its ``indices_inverse`` may be there too. The arrays of the
    classifier may be absent from a conditional model that was trained without one; its logits are
    then zero.

    Args:
      arrays: The official variables by name, as ``official_names`` lists them and ``glow_arrays``
        reads them from a checkpoint. In float64 if JAX has 64 bits enabled, else in float32.
      config: The config of the same sizes.

    Returns:
      A ``Dequantized`` flow.

    Raises:
      ValueError: If an array is missing, left over, or of another shape than the config says, or a
        permutation is none.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039; its official code in TensorFlow 1.
    """
    density = unstack(build(config, key=0))
    names = dict(official_names(density))
    classifier = {
        ours: official for ours, official in names.items() if official.startswith("classifier.")
    }
    if not set(classifier.values()) & set(arrays):
        names = {ours: official for ours, official in names.items() if ours not in classifier}
    indices = [official for official in names.values() if official.endswith(".indices")]
    inverses = [f"{official}_inverse" for official in indices]
    check_names(arrays, names.values(), config=config, optional=inverses)
    for official in indices:
        _check_permutation(official, arrays)
    return for_backend(fill(density, arrays, names, kept=classifier))


def _check_permutation(official: str, arrays: Mapping[str, Any]) -> None:
    order = np.asarray(arrays[official])
    if sorted(order.tolist()) != list(range(len(order))):
        raise ValueError(
            f"expected {official} to be a permutation of 0 to {len(order) - 1}, "
            f"got {order.tolist()}"
        )
    inverse = np.asarray(arrays.get(f"{official}_inverse", np.argsort(order)))
    if not np.array_equal(inverse, np.argsort(order)):
        raise ValueError(
            f"expected {official}_inverse to be the inverse of {official}, got {inverse.tolist()}"
        )
