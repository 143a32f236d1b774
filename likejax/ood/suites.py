"""Classic suites of outside sets, in both directions, with their preprocessing pinned.

A family holds datasets that are brought to one representation; each of them is the inside set of a
suite whose outside sets are the others, changed forms of itself, noise and constant images. Sets
are *near* if they show the same kind of thing as the inside set, or are changed forms of it, else
*far*: handwriting is near handwriting and far from clothing.

Three rules hold for all steps. Images that have the same size are never resampled. Larger ones are
resized by averages over areas (Pillow's ``box``), because other filters are sharper or smoother
than the pictures beside them. Gray images are not compared with color images, since three equal
channels are far likelier than three that differ.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from likejax.data.dataset import Dataset
from likejax.data.loading import load, source_of
from likejax.data.sources.synthetic import constants_like, noise_like
from likejax.facts import facts_table
from likejax.names import meant
from likejax.ood.results import Distance
from likejax.settings import Count, CountOrZero, checked

MADE: Mapping[str, Callable[..., Dataset]] = {"noise": noise_like, "constants": constants_like}
"""Sets that are drawn in the form of the inside set, by their names."""


class Member(NamedTuple):
    """A dataset of a family.

    Attributes:
      source: Name with the steps that bring it to the family's representation.
      content: Kind of thing that its images show; sets of one content are near each other.
      caution: Peculiarity that a score may react to, or an overlap; empty if none is known.
    """

    source: str
    content: str
    caution: str = ""


class OutsideSet(NamedTuple):
    """An outside set of a suite.

    Attributes:
      name: Name in reports.
      source: Name that ``lj.load`` takes, with its steps; or ``noise`` or ``constants``.
      distance: ``near`` or ``far``.
      caution: Peculiarity that a score may react to, or an overlap; empty if none is known.

    Example:
      >>> import likejax as lj
      >>> lj.ood.SUITES["cifar10"][0]
      OutsideSet(name='cifar100', source='cifar100', distance='near', caution='')
    """

    name: str
    source: str
    distance: Distance
    caution: str = ""


_RESIZED = "smoothed by resizing"
_GRAY = {
    "fashion_mnist": Member("fashion_mnist", "clothing"),
    "mnist": Member("mnist", "handwriting"),
    "kmnist": Member("kmnist", "handwriting"),
    "emnist_letters": Member(
        "emnist_letters", "handwriting", "some letters look like digits (o, l, i)"
    ),
    "notmnist": Member("notmnist", "printed letters"),
    "omniglot": Member("omniglot+invert+resize:28x28:box", "handwriting", _RESIZED),
    "omniglot_on_paper": Member(
        "omniglot+resize:28x28:box", "dark ink", f"{_RESIZED}; mostly white"
    ),
}
_COLOR = {
    "cifar10": Member("cifar10", "objects"),
    "cifar100": Member("cifar100", "objects"),
    "svhn": Member("svhn", "house numbers"),
    "celeba": Member("celeba+resize:32x32:box", "faces", f"{_RESIZED}; compressed by JPEG before"),
    "tiny_imagenet": Member(
        "tiny_imagenet+resize:32x32:box",
        "objects",
        f"{_RESIZED}; compressed by JPEG before; shares classes with CIFAR",
    ),
    "gtsrb": Member("gtsrb", "traffic signs", _RESIZED),
}
_DIGITS = {
    "digits": Member("digits", "handwriting"),
    "photographs": Member("photographs+gray+resize:8x8:box+levels:17", "objects", _RESIZED),
}
_CHANGES = ("hflip", "vflip", "rotate:90", "contrast:0.5", "noise:0.1")
"""Steps that make near sets of the inside set."""


def _suites(family: Mapping[str, Member]) -> dict[str, tuple[OutsideSet, ...]]:
    """The outside sets of every member of a family, near ones first."""
    return {name: _outside(name, family) for name in family}


def _outside(inside: str, family: Mapping[str, Member]) -> tuple[OutsideSet, ...]:
    own = family[inside]
    sets = []
    for name, member in family.items():
        distance: Distance = "near" if member.content == own.content else "far"
        if name != inside:
            sets.append(OutsideSet(name, member.source, distance, member.caution))
    for step in _CHANGES:
        sets.append(OutsideSet(f"{inside}+{step}", f"{own.source}+{step}", "near"))
    sets += [OutsideSet(name, name, "far") for name in MADE]
    return tuple(sorted(sets, key=lambda each: each.distance == "far"))


_FAMILIES = (_GRAY, _COLOR, _DIGITS)
_MEMBERS: Mapping[str, Member] = {
    name: member for family in _FAMILIES for name, member in family.items()
}
SUITES: Mapping[str, tuple[OutsideSet, ...]] = {
    name: sets for family in _FAMILIES for name, sets in _suites(family).items()
}
"""From the name of an inside set to its outside sets, near ones first."""


@dataclasses.dataclass(frozen=True)
class Suite:
    """The outside sets of an inside set that are here, and those that are not.

    Attributes:
      name: Name of the inside set in ``SUITES``.
      inside: Name of the inside set that ``lj.load`` takes, with its steps.
      sets: Outside sets that can be loaded here, near ones first.
      absent: Outside sets whose files are not here.
      data_dir: Folder of data files; ``None`` for the environment variable's.

    Example:
      >>> import likejax as lj
      >>> suite = lj.ood.suite("digits")
      >>> suite.names("far")
      ('photographs', 'noise', 'constants')
      >>> suite.load(limit=100)["photographs"]
      Dataset('photographs', test, n=100, (8, 8, 1) uint8, 17 levels)
    """

    name: str
    inside: str
    sets: tuple[OutsideSet, ...]
    absent: tuple[OutsideSet, ...]
    data_dir: str | os.PathLike[str] | None = None

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        facts = {"inside": self.inside}
        for each in self.sets:
            words = [each.distance, each.source, each.caution]
            facts[each.name] = "; ".join(word for word in words if word)
        if self.absent:
            facts["files not here"] = ", ".join(each.name for each in self.absent)
        return facts_table(facts, caption=f"suite {self.name}")

    def names(self, distance: str | None = None) -> tuple[str, ...]:
        """Returns the names of the sets that are here.

        Args:
          distance: ``near`` or ``far``; both if not given.

        Raises:
          ValueError: If the distance is another word.
        """
        distance = checked("the distance", distance, Distance | None)
        return tuple(each.name for each in self.sets if distance in (None, each.distance))

    @property
    def distances(self) -> dict[str, Distance]:
        """``near`` or ``far`` by the names of the sets that are here, for ``benchmark``."""
        return {each.name: each.distance for each in self.sets}

    def load(
        self,
        *,
        prepare: Callable[[Dataset], Dataset] | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> dict[str, Dataset]:
        """Loads the test parts of the sets that are here, as ``lj.ood.benchmark`` takes them.

        Args:
          prepare: Function that is applied to every set, such as ``experiment.as_evaluated`` for a
            density of binary images, or ``lambda data: data.reduce_levels(32)``.
          limit: Largest number of examples of a set, drawn at random; all if not given.
          seed: Random seed of noise, constants and that draw.

        Returns:
          Datasets by the names of the sets; noise and constants have the number of examples and
          the form of the inside set.

        Raises:
          ValueError: If files are damaged.
        """
        seed = checked("seed", seed, CountOrZero)
        most = None if limit is None else checked("limit", limit, Count)
        inside = self._prepared(self.inside, prepare)
        loaded = {}
        for each in self.sets:
            if each.source in MADE:
                data = MADE[each.source](inside, len(inside), seed=seed)
            else:
                data = self._prepared(each.source, prepare)
            if most is not None and len(data) > most:
                data = data.shuffled(seed).take(slice(0, most))
            loaded[each.name] = dataclasses.replace(data, name=each.name)
        return loaded

    def _prepared(self, source: str, prepare: Callable[[Dataset], Dataset] | None) -> Dataset:
        data = load(source, split="test", data_dir=self.data_dir)
        return data if prepare is None else prepare(data)

    def __str__(self) -> str:
        rows = [f"{self.name} against"]
        width = max(len(each.name) for each in (*self.sets, *self.absent))
        for each in (*self.sets, *self.absent):
            words = [f"{each.name:<{width}}  {each.distance:<4}  {each.source}"]
            words += [f"({each.caution})"] if each.caution else []
            words += ["- not here"] if each in self.absent else []
            rows.append("  " + " ".join(words))
        return "\n".join(rows)


def suite(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Suite:
    """Finds the outside sets of an inside set of which the files are here.

    Printed, a suite lists all sets: near or far, with their steps, what to be careful about, and
    which of them are not here. Nothing is read or downloaded before ``Suite.load``.

    Args:
      name: Name of an inside set, one of ``SUITES``.
      data_dir: Folder of data files; the environment variable ``LIKEJAX_DATA`` if not given.

    Returns:
      The suite.

    Raises:
      ValueError: If there is no suite of that name, or ``data_dir`` is not a folder.

    References:
      Nalisnick et al., 2019, Do deep generative models know what they don't know?,
      arXiv:1810.09136, for the first of these pairs and for constant images.

    Example:
      >>> import likejax as lj
      >>> print(lj.ood.suite("digits"))
      digits against
        digits+hflip         near  digits+hflip
        digits+vflip         near  digits+vflip
        digits+rotate:90     near  digits+rotate:90
        digits+contrast:0.5  near  digits+contrast:0.5
        digits+noise:0.1     near  digits+noise:0.1
        photographs          far   photographs+gray+resize:8x8:box+levels:17 (smoothed by resizing)
        noise                far   noise
        constants            far   constants
    """
    if name not in SUITES:
        known = ", ".join(SUITES)
        raise ValueError(f"no suite of {name!r}; there are {known}{meant(name, SUITES)}")
    here, absent = [], []
    for each in SUITES[name]:
        is_here = each.source in MADE or bool(source_of(each.source, data_dir=data_dir))
        (here if is_here else absent).append(each)
    return Suite(name, _MEMBERS[name].source, tuple(here), tuple(absent), data_dir)
