"""Several densities of one structure, computed together, and the mixture of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from likejax.density import Density, Kind, check_density, combine_in_own_type, log_prob_of_draw
from likejax.inputs import numpy_of
from likejax.keys import KeyLike, as_key
from likejax.models.building import build
from likejax.models.mixing import NO_DIFFUSION, log_mixture
from likejax.nn.copies import copy_at, map_copies, together
from likejax.nn.modules import replace
from likejax.nn.repeat import for_backend
from likejax.nn.state import split
from likejax.settings import Count, CountOrZero, Settings, checked

_SHARED = (
    "event_shape",
    "levels",
    "condition_shape",
    "num_classes",
    "column_kinds",
    "kind",
    "config",
)
"""Attributes that all members have in common, in the order in which they are compared."""


class Ensemble(Density):
    """The mixture of ``K`` densities with equal weights, ``p(x) = 1/K sum_k p_k(x)``.

    The members have one structure and differ in their arrays alone, such as runs of one experiment
    with different keys (``lj.train.fit_ensemble``). The arrays are stacked, and one compiled
    program computes all members (``jax.vmap``). A batch takes the memory of ``K`` batches of one
    member, so a smaller ``batch_size`` helps where it is short. Densities of different structure
    are refused.

    ``log_prob_members`` gives the log-probability of each member, for statistics of their
    disagreement. The kinds combine as follows:

    * ``EXACT`` gives ``EXACT``: ``log p(x) = logsumexp_k log p_k(x) - log K``.
    * ``BOUND`` gives ``BOUND``. Draws ``w_k`` of all members, with one key, have
      ``E[w_k] = p_k(x)``. A mean needs no independence, so ``1/K sum_k w_k`` is an importance
      weight of the mixture, by the same formula.
    * ``ESTIMATE`` gives ``ESTIMATE``. That formula would be too high on average, so a draw weights
      the members and a second one, with an independent key, gives a value that is at most
      ``log p(x)`` on average; see ``likejax.models.mixing.log_mixture``.

    A sample is drawn from a member that is chosen uniformly. All members draw, and one draw is
    kept, so a sample costs as much as ``K`` of one member. ``initialize`` initializes every member.
    Training an ensemble with ``lj.fit`` fits the mixture, whose members are not independent then.

    ``lj.save`` and ``lj.restore`` treat it as any other density. If its members have a config, it
    has one too, an ``EnsembleConfig``. Otherwise it is restored into an ensemble of the same
    structure, ``lj.restore(directory, density=ensemble)``.

    Args:
      members: Densities of one structure, at least one.

    Raises:
      TypeError: If a member is not a density, or they are no sequence.
      ValueError: If there are none, or they differ in anything but the values of their arrays; the
        message says in what.

    Attributes:
      density: The members as one density, whose arrays have one more axis: not to be called.
      size: Number of members.

    References:
      Lakshminarayanan, Pritzel and Blundell, 2017, Simple and scalable predictive uncertainty
      estimation using deep ensembles, arXiv:1612.01474. Choi, Jang and Alemi, 2018, WAIC, but why?
      Generative ensembles for robust anomaly detection, arXiv:1810.01392.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> normals = [lj.models.FullGaussian(jnp.full(1, m), jnp.eye(1), (1,)) for m in (0.0, 2.0)]
      >>> ensemble = lj.models.Ensemble(normals)
      >>> ensemble.log_prob_members(jnp.zeros((3, 1))).shape
      (2, 3)
      >>> round(float(ensemble.log_prob(jnp.ones(1))), 4)  # both are one deviation away
      -1.4189
    """

    def __init__(self, members: Sequence[Density]):
        members = [_in_form(member) for member in _checked_members(members)]
        for number, member in enumerate(members):
            _check_same(members[0], member, number)
        self.density = together(members)
        self.size = len(members)
        self.event_shape = members[0].event_shape
        self.levels = members[0].levels
        self.condition_shape = members[0].condition_shape
        self.num_classes = members[0].num_classes
        self.column_kinds = members[0].column_kinds
        inner = members[0].config
        self.config = None if inner is None else EnsembleConfig(inner, self.size)

    @property
    def kind(self) -> Kind:
        """Kind of number of the members."""
        return self.density.kind

    @property
    def differentiable(self) -> bool:
        """Whether the log-probability changes with ``x`` between integers too."""
        return self.member(0).differentiable

    @property
    def sum_log_std(self) -> float | None:
        """``sum(log std)`` in nats that all members standardize by; ``None`` if they differ."""
        values = {self.member(number).sum_log_std for number in range(self.size)}
        return values.pop() if len(values) == 1 else None

    def __len__(self) -> int:
        """Number of members."""
        return self.size

    def member(self, number: int) -> Density:
        """Returns one member.

        Args:
          number: Its number, from 0.

        Raises:
          ValueError: If there is no such member.
        """
        number = checked("number", number, CountOrZero)
        if number >= self.size:
            raise ValueError(
                f"expected the number of a member from 0 to {self.size - 1}, got {number}"
            )
        return copy_at(self.density, number)

    def log_prob_members(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        condition: ArrayLike | None = None,
        draws: int = 1,
    ) -> Float[Array, "members ..."]:
        """Log-probability under each member, ``member(k).log_prob`` with the same arguments.

        The key of an example is the same for all members. Noise that they share cancels in their
        differences, so identical members agree to the last bit.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          condition: Condition, as for ``log_prob``.
          draws: Number of draws to combine for each member, as the kind allows.

        Returns:
          ``(members, *batch)`` in nats.

        Raises:
          TypeError: For floats where the members take integers, or the reverse; so for conditions.
          ValueError: For a wrong shape or values out of range, or a missing key or condition.

        Example:
          >>> import jax.numpy as jnp, likejax as lj
          >>> uniform = lj.models.Uniform((2,))
          >>> lj.models.Ensemble([uniform] * 3).log_prob_members(jnp.full((2,), 0.5)).tolist()
          [0.0, 0.0, 0.0]
        """
        draws = checked("draws", draws, Count)
        if self.kind is Kind.EXACT:
            key, draws = None, 1
        values = self._over_draws(_members_of_draw, x, key=key, condition=condition, draws=draws)
        each = numpy_of(values).moveaxis(values, -1, 1)
        return combine_in_own_type(each, self.kind)

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        def joint(key: Array | None) -> Float[Array, " members"]:
            return _log_probs(self, x, key, condition) - jnp.log(self.size)

        return log_mixture(joint, self.kind, key)

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        """Draws the member, uniformly at any temperature, and then an example of it."""
        member_key, example_key = jax.random.split(key)
        number = jax.random.randint(member_key, (), 0, self.size)
        # Arrays of one member for every sample would take the memory of as many members.
        x, finite = self._map(lambda member: member._draw(example_key, condition, temperature))
        return x[number], finite[number]

    def _map(self, function: Callable[[Density], Any]) -> Any:
        """What a function gives for every member, every array with a leading axis of members."""
        return map_copies(function, self.density, self.size)

    def initialize(self, batch: ArrayLike, key: KeyLike) -> Ensemble:
        """Returns an ensemble whose members' data-dependent parameters fit ``batch``.

        Args:
          batch: Examples ``(n, *event_shape)``.
          key: Key of the noise, if any; member ``k`` uses ``fold_in(key, k)``.
        """
        keys = [jax.random.fold_in(as_key(key), number) for number in range(self.size)]
        members = [self.member(number).initialize(batch, own) for number, own in enumerate(keys)]
        return replace(self, density=together(members))

    def why_not(self, query: str) -> str:
        """Returns why the ensemble cannot have an optional query of its members.

        Args:
          query: Name of the query, see ``Density.offers``.
        """
        if query == "diffusion" and self.member(0).offers(query):
            return NO_DIFFUSION.format("Take one member, ensemble.member(0)")
        return super().why_not(query)

    def _facts(self) -> dict[str, Any]:
        return super()._facts() | {"members": getattr(self, "size", "not set")}


def _log_probs(
    ensemble: Ensemble, x: Array, key: Array | None, condition: Array | None
) -> Float[Array, " members"]:
    """One draw of the log-probability of one example under every member."""

    def of_member(member: Density) -> Array:
        log_prob = jnp.asarray(member._log_prob(x, key, condition))
        return log_prob.astype(jnp.promote_types(log_prob.dtype, jnp.float32))

    return ensemble._map(of_member)


def _members_of_draw(
    ensemble: Ensemble, x: Array, key: Array | None, condition: Array | None, draw: ArrayLike
) -> Float[Array, " members"]:
    """The draw of that number of the log-probability of one example under every member."""
    return ensemble._map(lambda member: log_prob_of_draw(member, x, key, condition, draw))


# --- what is checked of the members


def _checked_members(members: Sequence[Density]) -> list[Density]:
    """Returns the members as a list of densities that declare what they must."""
    if isinstance(members, Density) or not isinstance(members, Sequence):
        raise TypeError(
            "expected a sequence of densities as members, got "
            f"{type(members).__name__}: pass a list, such as [run.density for run in runs]"
        )
    if not members:
        raise ValueError("expected at least one density as a member, got none")
    for member in members:
        check_density(member)
    return list(members)


def _in_form(member: Density) -> Density:
    """Returns a member with its repeated blocks in the form of this backend, stacked if traced."""
    is_traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(member))
    return member if is_traced else for_backend(member)


def _check_same(first: Density, member: Density, number: int) -> None:
    """Raises a ValueError unless a member differs from the first in the values of arrays alone."""
    if type(member) is not type(first):
        raise _difference("class", type(first).__name__, type(member).__name__, number)
    for name in _SHARED:
        ours, theirs = getattr(first, name), getattr(member, name)
        if ours != theirs:
            raise _difference(name, ours, theirs, number)
    ours, theirs = _forms(first), _forms(member)
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            place = f"the array {name}"
            raise _difference(place, ours.get(name, "none"), theirs.get(name, "none"), number)
    if jax.tree.structure(first) != jax.tree.structure(member):
        raise ValueError(
            f"expected members of one structure, got member 0 and member {number} with the same "
            "arrays and different settings: build both from one config"
        )


def _difference(what: str, ours: object, theirs: object, number: int) -> ValueError:
    """The error of members that differ."""
    return ValueError(
        "expected members that differ in the values of their arrays alone, got member 0 with "
        f"{what} {ours!r:.200} and member {number} with {theirs!r:.200}: train all members by one "
        "experiment, as lj.train.fit_ensemble does"
    )


def _forms(density: Density) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of every array, by its name."""
    _, params, fixed = split(density)
    arrays = {**params, **fixed}
    return {name: (np.shape(leaf), str(jnp.result_type(leaf))) for name, leaf in arrays.items()}


# --- the config


@dataclasses.dataclass(frozen=True)
class EnsembleConfig(Settings):
    """An ensemble of untrained members of one config, each with a key of its own.

    It is what ``lj.restore`` builds a saved ensemble from. To train members that are independent of
    each other, use ``lj.train.fit_ensemble``; ``lj.fit`` of this config trains the mixture as one
    model.

    Raises:
      TypeError: If ``member`` is no config.

    Example:
      >>> import likejax as lj
      >>> config = lj.models.EnsembleConfig(lj.models.VectorGlowConfig(depth=1, width=4), members=3)
      >>> len(lj.build(config, key=0))
      3
    """

    family: ClassVar[str] = "ensemble"

    member: Any
    """Config of every member."""
    members: Count = 5
    """Number of members."""

    def _check_together(self) -> None:
        if not hasattr(self.member, "build") or isinstance(self.member, type):
            raise TypeError(
                "expected EnsembleConfig.member to be the config of a density, such as "
                f"lj.models.GlowConfig(), got {self.member!r:.100}"
            )

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """Shape of one example, if the config of a member states it."""
        return getattr(self.member, "event_shape", None)

    @property
    def levels(self) -> int | None:
        """Number of integer values of an entry, if the config of a member states it."""
        return getattr(self.member, "levels", None)

    def build(self, rngs: nnx.Rngs) -> Ensemble:
        """Builds the untrained members.

        Args:
          rngs: Random generators, of which each member takes a key.
        """
        return Ensemble([build(self.member, key=rngs.params()) for _ in range(self.members)])
