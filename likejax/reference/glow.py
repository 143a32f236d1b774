"""Weights of the official Glow code as a likejax density."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from likejax.models import build
from likejax.models.dequantize import Dequantized
from likejax.models.glow import GlowConfig
from likejax.nn.repeat import for_backend, unstack
from likejax.nn.state import merge, split
from likejax.reference.checkpoints import Weights, tensorflow_variables

_FLOW = "density.bijection.bijections"


def official_names(config: GlowConfig) -> Iterator[tuple[str, str]]:
    """Pairs of a parameter's name in an unstacked likejax Glow and in the official checkpoint.

    The official names are ``LEVEL.STEP.actnorm_center.b``, ``LEVEL.STEP.f1.l_1.W``, ``poolLEVEL.conv.W``,
    ``prior.p.W``, ``prior.y_emb.W``, ``classifier.W`` and so on; ``LEVEL.STEP.invconv.W`` is a 1x1 convolution and
    ``LEVEL.STEP.shuffle.indices`` a permutation.
    """
    for level in range(config.scales):
        for step in range(config.depth):
            ours = f"{_FLOW}.{3 * level + 2}.blocks.blocks.{step}.bijections"
            theirs = f"{level}.{step}"
            yield f"{ours}.0.affine.bias", f"{theirs}.actnorm_center.b"
            yield f"{ours}.0.affine.log_scale", f"{theirs}.actnorm_scale.logs"
            for name, official in _PERMUTATION[config.permutation].items():
                yield f"{ours}.1.{name}", f"{theirs}.{official}"
            network = f"{ours}.2.network"
            for layer, official in (("first", "l_1"), ("second", "l_2")):
                yield f"{network}.{layer}.kernel", f"{theirs}.f1.{official}.W"
                yield f"{network}.{layer}_affine.bias", f"{theirs}.f1.{official}.actnorm_center.b"
                yield (
                    f"{network}.{layer}_affine.log_scale",
                    f"{theirs}.f1.{official}.actnorm_scale.logs",
                )
            yield from _zeros(f"{network}.last", f"{theirs}.f1.l_last")
        if level < config.scales - 1:
            yield from _zeros(f"{_FLOW}.{3 * level + 3}.prior", f"pool{level}.conv")
    prior = f"{_FLOW}.{3 * config.scales}"
    if config.learned_prior:
        yield from _zeros(f"{prior}.prior", "prior.p")
    if config.num_classes:
        yield from _zeros(f"{prior}.embedding.linear", "prior.y_emb")
        yield from _zeros("density.classifier", "classifier")


_LU = {"permutation": "P", "lower": "L", "upper": "U", "log_scale": "log_S", "sign": "sign_S"}
_PERMUTATION: dict[str, dict[str, str]] = {
    "conv1x1": {"weight": "invconv.W"},
    "conv1x1_lu": {ours: f"invconv.{theirs}" for ours, theirs in _LU.items()},
    "reverse": {},
    "shuffle": {"order": "shuffle.indices"},
}


def _zeros(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.linear.kernel", f"{theirs}.W"
    yield f"{ours}.bias", f"{theirs}.b"
    yield f"{ours}.log_scale", f"{theirs}.logs"


def glow_arrays(
    checkpoint: Mapping[str, Any], *, weights: Weights = "last"
) -> dict[str, np.ndarray]:
    """The arrays that ``glow`` takes, from the variables of a checkpoint of the official code.

    TensorFlow reads such a checkpoint, ``LOGDIR/model_best_loss.ckpt`` for example::

        reader = tf.train.load_checkpoint(path)
        checkpoint = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        density = likejax.reference.glow(likejax.reference.glow_arrays(checkpoint), config)

    Its variables are ``model/LEVEL/STEP/actnorm_center/b``, ``model/poolLEVEL/conv/W``, ``model/prior/p/W``,
    ``model/classifier/W`` and so on.

    Args:
      checkpoint: Arrays by variable name.
      weights: Weights of the last step, as the official code evaluates them, or their moving average.

    Raises:
      ValueError: If the checkpoint holds no such variables.
    """
    variables = tensorflow_variables(checkpoint, weights)
    return {name.replace("/", "."): value for name, value in variables.items()}


def glow(arrays: Mapping[str, Any], config: GlowConfig) -> Dequantized:
    """The density of the official implementation's weights.

    A permutation by ``shuffle`` is the array ``LEVEL.STEP.shuffle.indices``: output channel ``i`` is input channel
    ``indices[i]``. Its ``indices_inverse`` may be there too. The arrays of the classifier may be absent from a
    conditional model that was trained without one; its logits are then zero.

    Args:
      arrays: The official variables by name, as ``official_names`` lists them and ``glow_arrays`` reads them from a
        checkpoint. In float64 if JAX has 64 bits enabled, else in float32.
      config: The config of the same sizes.

    Returns:
      A ``Dequantized`` flow.

    Raises:
      ValueError: If an array is missing, left over, or of another shape than the config says, or a permutation is none.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039; its official code in TensorFlow 1.
    """
    structure, params, fixed = split(unstack(build(config, key=0)))
    ours = {**params, **fixed}
    pairs = dict(official_names(config))
    classifier = {official for official in pairs.values() if official.startswith("classifier.")}
    if not classifier & set(arrays):
        pairs = {name: official for name, official in pairs.items() if official not in classifier}
    inverses = {
        f"{official}_inverse" for official in pairs.values() if official.endswith(".indices")
    }
    missing = sorted(set(pairs.values()) - set(arrays))
    left_over = sorted(set(arrays) - set(pairs.values()) - inverses)
    if missing or left_over:
        raise ValueError(
            f"expected the variables of {config}; missing {missing[:5]}, left over {left_over[:5]}"
        )
    for name, official in pairs.items():
        array = np.asarray(arrays[official])
        if _without_ones(array.shape) != _without_ones(ours[name].shape):
            raise ValueError(
                f"expected {official} to fill shape {ours[name].shape}, got {array.shape}"
            )
        if official.endswith(".indices"):
            _check_permutation(official, arrays)
            array = array.astype(ours[name].dtype)
        ours[name] = jnp.asarray(array.reshape(ours[name].shape))
    density = merge(structure, {n: ours[n] for n in params}, {n: ours[n] for n in fixed})
    return for_backend(density)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _check_permutation(official: str, arrays: Mapping[str, Any]) -> None:
    order = np.asarray(arrays[official])
    if sorted(order.tolist()) != list(range(len(order))):
        raise ValueError(
            f"expected {official} to be a permutation of 0 to {len(order) - 1}, got {order.tolist()}"
        )
    inverse = np.asarray(arrays.get(f"{official}_inverse", np.argsort(order)))
    if not np.array_equal(inverse, np.argsort(order)):
        raise ValueError(
            f"expected {official}_inverse to be the inverse of {official}, got {inverse.tolist()}"
        )
