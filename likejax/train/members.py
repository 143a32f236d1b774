"""Members of an ensemble that are trained together, each as in a training of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import DictKey
from jaxtyping import Array

from likejax.data.batches import Batch
from likejax.density import Density
from likejax.experiment import Experiment
from likejax.keys import fold_in_each
from likejax.models.ensemble import Ensemble
from likejax.nn.copies import copy_axes, map_copies
from likejax.nn.state import Arrays, split
from likejax.objectives import ELBO, NLL
from likejax.train.optimizer import build_optimizer


@dataclasses.dataclass(frozen=True)
class EachMember:
    """An objective of every member of an ensemble, with noise of its own.

    The loss and the metrics are means over the members. The gradient is that of the sum of their
    losses, so that each member has the gradient that it would have alone.

    Attributes:
      objective: Objective of one member, ``(density, batch, key, step) -> (loss, metrics)``.

    Example:
      >>> import likejax as lj
      >>> from likejax.train.members import EachMember
      >>> EachMember(lj.NLL())
      EachMember(objective=NLL(weights=()))
    """

    objective: Callable[..., Any]

    def __call__(
        self, density: Ensemble, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        """The mean loss of a batch over the members, and the means of their metrics.

        Args:
          density: Ensemble to train.
          batch: Examples, the same for all members.
          key: One key, or the keys of the examples.
          step: Number of the step.
        """

        def of_member(member: Density, own: Array) -> Any:
            return self.objective(member, batch, own, step)

        keys = member_keys(key, density.size)
        return _over_members(map_copies(of_member, density.density, density.size, keys))

    def check(self, density: Density) -> None:
        """Checks before training that the density is an ensemble whose members have all parts.

        Args:
          density: Density to train, or its structure alone (from ``jax.eval_shape``).

        Raises:
          TypeError: If it is no ensemble, or its members lack the parts of an ELBO.
          ValueError: If its members lack a part that has a weight.
        """
        if not isinstance(density, Ensemble):
            raise TypeError(
                f"expected an ensemble for the objective EachMember, got {type(density).__name__}: "
                "lj.train.fit_ensemble(..., together=True) makes one of the experiment's model"
            )
        member = jax.eval_shape(lambda ensemble: ensemble.member(0), density)
        if isinstance(self.objective, NLL | ELBO):
            self.objective.check(member)


def member_keys(key: Array, members: int) -> Array:
    """Returns the key or keys of every member, with a leading axis of the members.

    Args:
      key: One key, or the keys of the examples; member ``k`` gets ``fold_in(key, k)`` of each.
      members: Number of members.
    """
    numbers = jnp.arange(members).reshape(members, *[1] * key.ndim)
    return fold_in_each(jnp.broadcast_to(key, (members, *key.shape)), numbers)


def _over_members(result: Any) -> Any:
    """What the step gets of an objective's results, whose arrays have an axis of the members."""
    if not isinstance(result, tuple) or len(result) != 2:
        return result  # the step refuses it
    losses, metrics = result
    total = jnp.sum(losses, 0)
    # the value of the mean, and the gradient of the sum
    loss = jax.lax.stop_gradient(jnp.mean(losses, 0)) + (total - jax.lax.stop_gradient(total))
    return loss, jax.tree.map(lambda values: jnp.mean(values, 0), metrics)


def optimizer_of(experiment: Experiment, density: Any) -> optax.GradientTransformation:
    """Returns the update rule of an experiment; for members that are trained together, of each.

    Args:
      experiment: Experiment that is run.
      density: Density that is trained, or its structure without arrays.

    Raises:
      ValueError: If only the name of a transformation is known, from the record of a run.
    """
    transformation = build_optimizer(experiment.optimizer, experiment.steps)
    if not isinstance(experiment.objective, EachMember):
        return transformation
    return for_each_member(transformation, density)


def for_each_member(
    transformation: optax.GradientTransformation, ensemble: Ensemble
) -> optax.GradientTransformation:
    """Returns a transformation that treats every member as if it were alone.

    Each member has a state of its own. The given transformation sees the arrays of one member,
    under the names that they have there, so norms and masks are those of one member.

    Args:
      transformation: Any transformation of optax.
      ensemble: Ensemble of the members, or its structure without arrays.

    Example:
      >>> import jax.numpy as jnp, likejax as lj, optax
      >>> from likejax.nn.state import split
      >>> from likejax.train.members import for_each_member
      >>> model = lj.models.EnsembleConfig(lj.models.VectorGlowConfig(depth=1, width=4), members=3)
      >>> ensemble = lj.build(model, key=0)
      >>> rule = for_each_member(optax.adam(1e-3), ensemble)
      >>> rule.init(split(ensemble)[1])[0].count.shape
      (3,)
    """
    rule = _EachMember(transformation, ensemble)
    return optax.GradientTransformation(rule.init, rule.update)  # type: ignore[arg-type]


class _EachMember:
    """The functions of ``for_each_member``.

    Args:
      transformation: Transformation of one member.
      ensemble: Ensemble of the members, or its structure without arrays.
    """

    def __init__(self, transformation: optax.GradientTransformation, ensemble: Ensemble):
        names = split(ensemble)[0].names
        own_names = split(ensemble.density)[0].names
        axes = copy_axes(ensemble.density)
        self._one = transformation
        self._members = ensemble.size
        self._axes = dict(zip(names, axes, strict=True))
        self._own_names = dict(zip(names, own_names, strict=True))
        self._names = dict(zip(own_names, names, strict=True))

    def init(self, params: Arrays) -> Any:
        """The states of all members."""
        axes, state_axes = self._axes_of(params)
        init = jax.vmap(self._init, (axes,), state_axes, axis_size=self._members)
        return init(params)

    def update(self, gradient: Arrays, state: Any, params: Arrays) -> tuple[Arrays, Any]:
        """The updates and the new states of all members."""
        axes, state_axes = self._axes_of(params)
        update = jax.vmap(self._update, (axes, state_axes, axes), (axes, state_axes))
        return update(gradient, state, params)

    def _init(self, params: Arrays) -> Any:
        """The state of one member."""
        state = self._one.init(_renamed(params, params, self._own_names))
        return self._with_names(state, params)

    def _update(self, gradient: Arrays, state: Any, params: Arrays) -> tuple[Any, Any]:
        """The updates and the new state of one member."""
        trees = [_renamed(tree, params, self._own_names) for tree in (gradient, state, params)]
        updates, state = self._one.update(*trees)
        return self._with_names(updates, params), self._with_names(state, params)

    def _with_names(self, tree: Any, params: Arrays) -> Any:
        """A tree of one member with the names of the ensemble."""
        own = [self._own_names[name] for name in params]
        return _renamed(tree, own, self._names)

    def _axes_of(self, params: Arrays) -> tuple[dict[str, int], Any]:
        """The axis of the members in every parameter, and in every array of the states."""
        axes = {name: self._axes[name] for name in params}

        def first(params: Arrays) -> Any:
            own = {name: jnp.take(leaf, 0, axes[name]) for name, leaf in params.items()}
            return self._init(own)

        def axis_of(path: tuple[Any, ...], leaf: Any) -> int:
            keys = [entry.key for entry in path if isinstance(entry, DictKey)]
            found = [axes[key] for key in keys if key in axes]
            # what goes with a parameter has its axes, so that its blocks can be taken apart
            return min(found[0], leaf.ndim) if found else 0

        state = jax.eval_shape(first, params)
        return axes, jax.tree_util.tree_map_with_path(axis_of, state)


def _renamed(tree: Any, params: Any, names: Mapping[str, str]) -> Any:
    """A tree in which every dictionary with an entry for each parameter has other names.

    Args:
      tree: Parameters, or the state of an optimizer.
      params: Names of the parameters in the tree.
      names: New name of each.
    """
    wanted = set(params)

    def has_names(node: object) -> bool:
        return isinstance(node, dict) and node.keys() == wanted

    def change(node: Any) -> Any:
        if not has_names(node):
            return node
        return {names[name]: item for name, item in node.items()}

    return jax.tree.map(change, tree, is_leaf=has_names)
