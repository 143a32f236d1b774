"""A score that has seen inside data: it scores, calibrates, and is saved."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from likejax.data.dataset import Dataset
from likejax.data.splits import check_disjoint_rows, row_hashes
from likejax.density import Density, check_density
from likejax.evaluation import check_fit
from likejax.keys import KeyLike
from likejax.ood import calibrate
from likejax.ood.checks import checked_dataset, rows_named
from likejax.ood.features import Compute, features_of, keys_of
from likejax.storage.density import checksum_of
from likejax.storage.density import restore as restore_density
from likejax.storage.density import save as save_density
from likejax.storage.files import directory_path
from likejax.storage.store import CheckpointError

if TYPE_CHECKING:
    from likejax.ood.scores import Score

_RECORD = "score.json"
_ARRAYS = "score.npz"


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class FittedScore:
    """A pure function from examples to scores, higher = more OOD; a pytree of its densities and numbers.

    Attributes:
      recipe: What it was fitted from.
      densities: The density that is scored, ``density``, and those the recipe compares it with.
      state: What fitting learned.
      calibration: Sorted scores of calibration examples ``(n,)``, or ``None`` before ``calibrate``.
      rows: Hashes of the rows that it was fitted on and calibrated with, so that overlap is noticed.
    """

    recipe: Score
    densities: Mapping[str, Density]
    state: Mapping[str, Any]
    calibration: Any = None
    rows: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        recipe: Score,
        densities: Mapping[str, Density],
        state: Mapping[str, float],
        dataset: Dataset,
    ) -> FittedScore:
        """What ``recipe.fit`` returns."""
        return cls(recipe, dict(densities), state, None, {"fit": row_hashes(dataset)})

    def tree_flatten(self) -> tuple[Any, Any]:
        names = tuple(self.state)
        static = (
            _Same(self.recipe, self.calibration, self.rows),
            names,
        )  # float64 and hashes: not for devices
        return (dict(self.densities), [self.state[n] for n in names]), static

    @classmethod
    def tree_unflatten(cls, static: Any, children: Any) -> FittedScore:
        same, names = static
        recipe, calibration, rows = same.values
        densities, values = children
        return cls(recipe, densities, dict(zip(names, values, strict=True)), calibration, rows)

    def __call__(
        self, x: Any, *, key: KeyLike | None = None, batch_size: int = 128
    ) -> Float[Any, "*batch"]:
        """Scores of examples; each depends on its example and its key alone, never on batch-mates.

        Host arrays are scored in chunks by compiled functions and give float64; inside ``jax.jit`` the whole call is
        traced.

        Args:
          x: ``(*batch, *event_shape)``, or ``(*batch, group, *event_shape)`` where the recipe judges groups.
          key: One key, folded by flat position, or keys of shape ``batch`` (``(*batch, group)``); not needed where
            all densities are exact.
          batch_size: Examples at a time.

        Returns:
          ``(*batch,)``.

        Raises:
          ValueError: For a wrong shape, or a missing key.
        """
        if isinstance(x, Dataset):
            raise TypeError(f"expected an array of examples, got {x!r}: pass its .examples")
        x = x if hasattr(x, "dtype") else np.asarray(x)
        batch = self._batch_of(x)
        flat = x.reshape(-1, *self.densities["density"].event_shape)
        keys = self._keys(key, batch)
        if len(flat) == 0:
            return np.zeros(batch)
        scores = self.of_features(features_of(self.densities, flat, keys, batch_size=batch_size))
        return scores.reshape(batch)

    def of_features(self, compute: Compute) -> Float[Any, " n"]:
        """Scores from features of examples in a row, of whole groups if the recipe judges groups."""
        statistic = self.recipe.statistic_of(compute, self.densities["density"].event_shape)
        return self.recipe._judge(self.state, statistic.reshape(-1, self.recipe.group))

    def numbers_of(self, compute: Compute, what: str) -> Float[np.ndarray, " n"]:
        """``of_features`` where every example needs a number: in calibration and in tables.

        Args:
          compute: Features of examples in a row, of whole groups if the recipe judges groups.
          what: What the examples are called in an error message.

        Returns:
          Scores in float64; infinite ones have their rank.

        Raises:
          ValueError: If a score is NaN; the message says of which score and which row.
        """
        scores = np.asarray(self.of_features(compute), np.float64)
        bad = np.flatnonzero(np.isnan(scores))
        if len(bad):
            unit = "example" if self.recipe.group == 1 else f"group of {self.recipe.group}"
            raise ValueError(
                f"expected a number for every {unit}, {self.recipe.label} is NaN for {rows_named(bad)} of {what}. A "
                "difference of two infinities is NaN: then both numbers that the score compares exclude the example. "
                "Leave these examples out, or use a score that does not compare"
            )
        return scores

    def _batch_of(self, x: Any) -> tuple[int, ...]:
        wanted = self.densities["density"].event_shape
        if self.recipe.group > 1:
            wanted = (self.recipe.group, *wanted)
        if x.ndim < len(wanted) or x.shape[x.ndim - len(wanted) :] != wanted:
            raise ValueError(
                f"expected x of shape (*batch, {', '.join(map(str, wanted))}), got {tuple(x.shape)}"
            )
        return tuple(x.shape[: x.ndim - len(wanted)])

    def _keys(self, key: KeyLike | None, batch: tuple[int, ...]) -> Any:
        if not self.recipe._needs_key(self.densities):
            return None
        if key is None:
            raise ValueError(
                f"{self.recipe.label} is computed with random draws: pass key=jax.random.key(seed)"
            )
        return keys_of(key, batch, self.recipe.group)

    def calibrate(
        self,
        dataset: Dataset,
        *,
        key: KeyLike | None = None,
        overlap_tolerance: float = 0.0,
        batch_size: int = 128,
    ) -> FittedScore:
        """The same score with ``threshold`` and ``p_value``, from inside examples that nothing was fitted on.

        Args:
          dataset: Held-out inside examples, exchangeable with those to be judged; disjoint from those of ``fit``.
            Of groups, whole ones are formed in the order of the dataset. Rows that chose the weights of the density
            do not belong here either; ``data.hold_out`` keeps them apart.
          key: Key of the draws; example ``i`` uses ``fold_in(key, i)``.
          overlap_tolerance: Largest share of these different rows that may be among those of ``fit``; 0 allows none.
          batch_size: Examples at a time.

        Returns:
          The calibrated score; this one is left as it is.

        Raises:
          TypeError: If there is no dataset.
          ValueError: If rows were used in ``fit``, or a score is NaN.
        """
        dataset = checked_dataset(
            dataset, self.densities["density"], "the examples to calibrate with"
        )
        check_fit(self.densities["density"], dataset)
        groups = len(dataset) // self.recipe.group
        if groups == 0:
            raise ValueError(
                f"expected at least {self.recipe.group} examples to form a group, got {len(dataset)}"
            )
        x = dataset.examples[: groups * self.recipe.group]
        keys = self._keys(key, (groups,))
        compute = features_of(self.densities, x, keys, batch_size=batch_size)
        return self.calibrate_features(compute, dataset, overlap_tolerance=overlap_tolerance)

    def calibrate_features(
        self, compute: Compute, dataset: Dataset, *, overlap_tolerance: float = 0.0
    ) -> FittedScore:
        """``calibrate`` from features that are computed already."""
        rows = row_hashes(dataset)
        if "fit" in self.rows:
            fitted_on = "the rows the score was fitted on", self.rows["fit"]
            check_disjoint_rows(fitted_on, (_title(dataset), rows), tolerance=overlap_tolerance)
        scores = self.numbers_of(compute, f"{_title(dataset)}, which calibrates it")
        return dataclasses.replace(
            self, calibration=np.sort(scores), rows={**self.rows, "calibration": rows}
        )

    def threshold(self, fpr: float, delta: float | None = None) -> float:
        """The score above which an example is called OOD, at a false-positive rate.

        Args:
          fpr: Wanted rate, which holds on average over calibration sets.
          delta: If given, the rate holds for this calibration set with probability ``1 - delta``.

        Raises:
          ValueError: If the score is not calibrated.
        """
        return calibrate.threshold(self._calibrated(), fpr, delta)

    def p_value(self, x: Any, *, key: KeyLike | None = None) -> Float[np.ndarray, "*batch"]:
        """Conformal p-values: of new inside examples at most a share ``alpha`` has a p-value up to ``alpha``.

        Args:
          x: As in a call.
          key: As in a call.

        Raises:
          ValueError: If the score is not calibrated, or NaN for an example.
        """
        calibration = self._calibrated()
        scores = np.asarray(self(x, key=key))
        if np.isnan(scores).any():
            bad = np.flatnonzero(np.isnan(scores))
            raise ValueError(
                f"expected examples that have a score, {self.recipe.label} is NaN for {rows_named(bad)}"
            )
        return calibrate.p_values(calibration, scores)

    def _calibrated(self) -> np.ndarray:
        if self.calibration is None:
            raise ValueError(
                "expected a calibrated score: call score = score.calibrate(dataset, key=key) first"
            )
        return self.calibration

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes recipe, state, calibration and densities; ``likejax.ood.restore`` reads them.

        The record comes last and has the checksums of all the rest: a write that was broken off is noticed.

        Args:
          directory: Where to; created if absent.
        """
        place = directory_path(directory)
        place.mkdir(parents=True, exist_ok=True)
        for name, density in self.densities.items():
            save_density(density, place / name)
        arrays = {f"rows_{name}": rows for name, rows in self.rows.items()}
        if self.calibration is not None:
            arrays["calibration"] = self.calibration
        with (place / (_ARRAYS + ".tmp")).open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        (place / (_ARRAYS + ".tmp")).replace(place / _ARRAYS)
        record = {
            "score": self.recipe.name,
            "settings": self.recipe._settings(),
            "state": {name: float(value) for name, value in self.state.items()},
            "densities": {name: checksum_of(density) for name, density in self.densities.items()},
            "arrays": hashlib.sha256((place / _ARRAYS).read_bytes()).hexdigest(),
        }
        record["digest"] = _digest(record)
        (place / (_RECORD + ".tmp")).write_text(json.dumps(record, indent=2))
        (place / (_RECORD + ".tmp")).replace(place / _RECORD)


def restore(directory: str | os.PathLike[str], **densities: Density) -> FittedScore:
    """A score that ``FittedScore.save`` wrote.

    Args:
      directory: Where it is.
      **densities: ``density=``, ``background=`` (by the name of its folder): densities of the same structure, where
        they were put together by hand and so have no config.

    Returns:
      The score, calibrated if it was.

    Raises:
      TypeError: If what is passed for a density is none.
      CheckpointError: If there is none, or it is damaged.
    """
    from likejax.ood.recipes import SCORES

    for density in densities.values():
        check_density(density)
    place = directory_path(directory)
    try:
        record = json.loads((place / _RECORD).read_text())
        if record["digest"] != _digest(record):
            raise CheckpointError(f"{place / _RECORD} does not have the checksum that was written")
        if hashlib.sha256((place / _ARRAYS).read_bytes()).hexdigest() != record["arrays"]:
            raise CheckpointError(f"{place / _ARRAYS} does not have the checksum that was written")
        if record["score"] not in SCORES:
            known = ", ".join(SCORES)
            raise CheckpointError(
                f"{place} holds a score of another kind, {record['score']!r}; there are {known}"
            )
        kind, names = SCORES[record["score"]], record["densities"]
        if unknown := [name for name in densities if name not in names]:
            raise ValueError(f"expected densities called {', '.join(names)}, got {unknown[0]!r}")
        with np.load(place / _ARRAYS, allow_pickle=False) as archive:
            arrays = dict(archive)
        state = {name: float(value) for name, value in record["state"].items()}
        found = {name: restore_density(place / name, density=densities.get(name)) for name in names}
        for name, density in found.items():
            if checksum_of(density) != names[name]:
                raise CheckpointError(
                    f"{place / name} is not the density that the score was saved with"
                )
        companions = {name: each for name, each in found.items() if name != "density"}
        recipe = kind._from_settings(record["settings"], companions)
    except (
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:
        raise CheckpointError(
            f"{place} holds no intact score: {type(error).__name__}: {error}"
        ) from error
    rows = {
        name.removeprefix("rows_"): array
        for name, array in arrays.items()
        if name.startswith("rows_")
    }
    return FittedScore(recipe, found, state, arrays.get("calibration"), rows)


class _Same:
    """Static data of a pytree that are equal to themselves only: recipes may hold densities."""

    def __init__(self, *values: Any):
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and all(
            a is b for a, b in zip(self.values, other.values, strict=True)
        )

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.values)))


def _digest(record: Mapping[str, Any]) -> str:
    text = json.dumps({k: v for k, v in record.items() if k != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _title(dataset: Dataset) -> str:
    return f"{dataset.name} {dataset.split}"
