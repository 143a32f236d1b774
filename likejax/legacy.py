"""Names and values of older versions that records, datasets and command lines may hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

_WORDS = {
    "optimiser": "optimizer",
    "initialise_with": "initialize_with",
    "binarise": "binarize",
    "binarisation": "binarization",
    "standardise": "standardize",
    "grey": "gray",
    "colour": "color",
}
_FAMILIES = {
    "glow": "GlowConfig",
    "vector_glow": "VectorGlowConfig",
    "ffjord": "FFJORDConfig",
    "image_ffjord": "ImageFFJORDConfig",
    "vae": "VAEConfig",
    "pixelcnn": "PixelCNNConfig",
}
_OBJECTIVES = ("NLL", "ELBO")
_WEIGHTS = {
    "class_weight": ("class_log_prob", -1.0),
    "kinetic_weight": ("kinetic_energy", 1.0),
    "jacobian_weight": ("jacobian_norm", 1.0),
}
"""Former settings of ``NLL``: the part of the terms that each weighted, and the weight's sign."""


def modern(name: str) -> str:
    """Returns the present spelling of a name.

    Only whole words are replaced, so ``greyhounds`` stays as it is.

    Args:
      name: Name of a setting, of a step behind a dataset's name, or of an augmentation.

    Example:
      >>> from likejax.legacy import modern
      >>> modern("optimiser.learning_rate")
      'optimizer.learning_rate'
    """
    return re.sub(r"[a-z_]+", lambda word: _WORDS.get(word[0], word[0]), name)


def modern_weights(words: Sequence[str], weights: Mapping[str, float]) -> list[str]:
    """Returns a command line with ``--objective.weights`` in place of the former option of each.

    Args:
      words: Words of the command line, for example ``--objective.kinetic-weight 0.1``.
      weights: Weights of the preset; those that no former option sets stay.

    Example:
      >>> from likejax.legacy import modern_weights
      >>> modern_weights(["--objective.class-weight=0.01"], {})
      ['--objective.weights', 'class_log_prob', '-0.01']
    """
    kept: list[str] = []
    changed = dict(weights)
    rest = iter(words)
    for word in rest:
        option, _, value = word.partition("=")
        former = option.removeprefix("--objective.").replace("-", "_")
        if not option.startswith("--objective.") or former not in _WEIGHTS:
            kept.append(word)
            continue
        part, sign = _WEIGHTS[former]
        changed[part] = sign * _number(option, value or next(rest, ""))
    if changed == dict(weights):
        return kept
    pairs = [str(each) for pair in changed.items() for each in pair]
    return [*kept, "--objective.weights", *pairs]


def _number(option: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"expected a number after {option}, got {value!r}") from None


def was_off(value: object) -> bool:
    """Returns whether a value turned a setting off before ``None`` did: 0, or what has no entries.

    Args:
      value: Value of a setting that ``None`` turns off.

    Example:
      >>> from likejax.legacy import was_off
      >>> was_off(0.0), was_off(()), was_off(None), was_off(0.5)
      (True, True, False, False)
    """
    if isinstance(value, str | tuple | list):
        return len(value) == 0
    if value is None or isinstance(value, bool | np.bool_):
        return False
    is_number = isinstance(value, int | float | np.number)
    return is_number and value == 0


def modern_offs(words: Sequence[str], names: Collection[str]) -> list[str]:
    """Returns a command line with ``None`` where a 0 turned a setting off.

    Args:
      words: Words of the command line, for example ``--optimizer.clip-norm 0``.
      names: Names of the settings that ``None`` turns off, for example ``optimizer.clip_norm``.

    Example:
      >>> from likejax.legacy import modern_offs
      >>> modern_offs(["--limit", "0", "--seed", "0", "--levels=0"], {"limit", "levels"})
      ['--limit', 'None', '--seed', '0', '--levels=None']
    """
    present: list[str] = []
    before = ""
    for word in words:
        option, equals, value = word.partition("=")
        if _is_option(option, names) and equals and _is_zero(value):
            word = f"{option}=None"
        elif _is_option(before, names) and _is_zero(word):
            word = "None"
        present.append(word)
        before = word
    return present


def _is_option(word: str, names: Collection[str]) -> bool:
    """Whether a word of a command line is the option of one of the settings."""
    return word.startswith("--") and word[2:].replace("-", "_") in names


def _is_zero(word: str) -> bool:
    try:
        return float(word) == 0
    except ValueError:
        return False


def modern_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the saved record of an experiment with the present names of its settings and classes.

    Args:
      record: Object of an ``experiment.json`` of any version.
    """
    renamed = {modern(name): value for name, value in record.items()}
    if "augment" in renamed:
        renamed["augment"] = [modern(spec) for spec in renamed["augment"]]
    if isinstance(renamed.get("objective"), Mapping):
        renamed["objective"] = _modern_objective(renamed["objective"])
    if isinstance(renamed.get("model"), Mapping):
        renamed["model"] = modern_model(renamed["model"])
    return renamed


def modern_model(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the saved record of a model with the path of its class in place of a family's name.

    Args:
      record: Record of a config, or of a density that was built from one.

    Raises:
      ValueError: If there is no such family.
    """
    settings = dict(record)
    if isinstance(settings.get("config"), Mapping):
        settings["config"] = modern_model(settings["config"])
    if "family" not in settings:
        return settings
    family = settings.pop("family")
    if family not in _FAMILIES:
        raise ValueError(f"unknown family {family!r}; the families are {', '.join(_FAMILIES)}")
    renamed = {modern(name): value for name, value in settings.items()}
    return {"class": f"likejax.models:{_FAMILIES[family]}", **renamed}


def _modern_objective(record: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(record)
    if settings.get("free_steps") == settings.get("free_fade_steps") == 0:
        settings["free_steps"] = None  # the floor of an ELBO stayed where both were 0
    if settings.get("name") not in _OBJECTIVES:
        return settings
    weights = []
    for former, (part, sign) in _WEIGHTS.items():
        weight = settings.pop(former, 0.0)
        if weight:
            weights.append([part, sign * weight])
    if weights:
        settings["weights"] = weights
    return {"class": f"likejax:{settings.pop('name')}", **settings}
