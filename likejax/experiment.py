"""The frozen record of a training run: model, data, objective, optimizer, schedule."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

import optax

from likejax.data.augment import check_augmentation
from likejax.data.dataset import Dataset
from likejax.density import Density
from likejax.legacy import modern_objective, modern_record
from likejax.models import config_class
from likejax.objectives import ELBO, NLL, OBJECTIVES
from likejax.settings import Count, CountOrZero, Fraction, NonNegative, Positive, Range, Settings

Model = TypeVar("Model")


@dataclasses.dataclass(frozen=True)
class Optimizer(Settings):
    """The update rule and its schedule; built with optax."""

    name: Literal["adam", "adamw", "adamax"] = "adam"
    """Update rule."""
    learning_rate: Positive = 1e-3
    """Rate after warm-up."""
    b1: Fraction = 0.9
    """Decay of the mean of gradients."""
    b2: Fraction = 0.999
    """Decay of the mean of squared gradients (of their maximum for adamax)."""
    eps: NonNegative = 1e-8
    """Added to the denominator."""
    eps_root: NonNegative = 0.0
    """Added to the mean of squared gradients, inside the root; adam and adamw."""
    weight_decay: NonNegative = 0.0
    """Weight decay: decoupled from the gradient in adamw, added to it (L2) in adam and adamax."""
    warmup_steps: CountOrZero = 0
    """Steps of linear warm-up from zero."""
    decay: Literal["constant", "cosine", "linear", "exponential"] = "constant"
    """What the rate does after warm-up: stay, fall to zero at the last step, or fall by decay_rate a step."""
    decay_rate: Annotated[float, Range(above=0, at_most=1)] = 0.999995
    """Factor a step of the exponential decay."""
    clip_norm: NonNegative = 0.0
    """Largest norm of the whole gradient; 0 for no clipping."""
    clip_adaptive: NonNegative = 0.0
    """Largest norm of each unit's gradient relative to its weights' (Brock et al., 2021); 0 for no clipping."""

    def _check_together(self):
        if self.eps_root and self.name == "adamax":
            raise ValueError(
                f"expected Optimizer.eps_root=0 for adamax, which has no such term, got {self.eps_root}"
            )
        default = type(self).decay_rate
        if self.decay != "exponential" and self.decay_rate != default:
            raise ValueError(
                f"expected Optimizer.decay='exponential' for a decay_rate of {self.decay_rate}, got {self.decay!r}, "
                "which does not use it"
            )


@dataclasses.dataclass(frozen=True)
class Guard(Settings):
    """Which steps are not taken: those that are not finite, and those whose gradient explodes.

    The reference is a running geometric mean of gradient norms. A spike doubles it, so a regime of larger gradients
    is accepted after a few steps and nothing is skipped for ever.
    """

    spike_factor: NonNegative = 20.0
    """A gradient norm of more than so many times the reference is a spike; 0 to look at non-finite steps only."""
    after: CountOrZero = 50
    """Steps before spikes are looked for, while the reference settles."""
    patience: Count = 10
    """Skipped steps in a row that stop the run."""

    def _check_together(self):
        if self.spike_factor and self.spike_factor <= 1:
            raise ValueError(
                f"expected guard.spike_factor above 1, or 0 for none, got {self.spike_factor}"
            )


@dataclasses.dataclass(frozen=True)
class Experiment(Settings, Generic[Model]):
    """A model, the data it is trained on, and how.

    Attributes:
      model: A family's config, or a ready ``Density``, which is then trained as it is, without initialization.
    """

    model: Model
    dataset: str = ""
    """Name of the dataset, for ``likejax.load``."""
    levels: CountOrZero = 0
    """Reduce the images to so many levels; 0 leaves them as they are."""
    augment: tuple[str, ...] = ()
    """Augmentations of training batches: flip, shift, binarize, mutate:RATE."""
    objective: NLL | ELBO | Callable = dataclasses.field(default_factory=NLL)
    """What is minimized: any function ``(density, batch, key, step) -> (loss, metrics)``."""
    optimizer: Optimizer | optax.GradientTransformation | Recorded = dataclasses.field(
        default_factory=Optimizer
    )
    """How it is minimized: settings, or any transformation of optax with its own schedule."""
    guard: Guard = dataclasses.field(default_factory=Guard)
    """Which steps are skipped."""
    batch_size: Count = 64
    """Examples per step, over all devices."""
    accumulate: Count = 1
    """Parts that a batch is cut into, one after the other in memory; their gradients are averaged."""
    steps: Count = 10_000
    """Steps in all."""
    initialize_with: Count | None = None
    """Training examples for data-dependent initialization; if None, 256 images, or all rows of a table up to 100,000:
    a column may be constant in a few rows. Of an iterable the first 256 rows, if None."""
    ema_decay: Fraction = 0.999
    """Decay of the moving average of the parameters, which evaluation uses."""
    validate_every: Count = 1_000
    """Steps between validations."""
    validation_examples: Count = 1_000
    """Validation examples used to select the best checkpoint."""
    overlap_tolerance: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Largest share of the different validation examples that may be among the training examples; 0 allows none."""
    early_stopping: CountOrZero = 0
    """Validations without a new best that end the run; 0 to go on to the last step."""
    checkpoint_every: Count = 1_000
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Newest checkpoints that are kept, besides the best."""
    log_every: Count = 100
    """Steps between lines of the log."""
    samples_every: CountOrZero = 0
    """Steps between sheets of samples, PNG files in the run's directory; 0 for none."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs tensorboardX)."""
    parameter_shards: Count = 1
    """Devices over which parameters, moving average and optimizer state are divided; 1 for a copy on each device."""

    def _check_together(self):
        if self.levels == 1:
            raise ValueError(
                "expected levels of at least 2, or 0 to leave the data as they are, got 1"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"expected a batch_size divisible by accumulate={self.accumulate}, got {self.batch_size}"
            )
        for spec in self.augment:
            check_augmentation(spec)
        if "binarize" in self.augment[:-1]:
            raise ValueError(
                f"expected binarize as the last augmentation, got {', '.join(self.augment)}"
            )

    def rows_to_initialize(self, event_shape: tuple[int, ...]) -> int:
        """How many training examples of a shape data-dependent initialization looks at, at most."""
        if self.initialize_with is not None:
            return self.initialize_with
        return 100_000 if len(event_shape) == 1 else 256

    @property
    def binarizes(self) -> bool:
        """Whether training batches are binarized, each anew."""
        return "binarize" in self.augment

    def as_evaluated(self, dataset: Dataset) -> Dataset:
        """A dataset as evaluation sees it: reduced to ``levels``, or one fixed draw of the binarization (seed 0)."""
        if self.levels and dataset.levels != self.levels:
            dataset = dataset.reduce_levels(self.levels)
        return dataset.binarize(0) if self.binarizes and dataset.levels != 2 else dataset


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An objective or optimizer of a user's own, as the record of a run names it: a file never imports code.

    Attributes:
      path: Where it was defined, ``module.name``.
      settings: Its fields as JSON, if it is a dataclass.
    """

    path: str
    settings: str = "{}"

    def __call__(self, *args: Any) -> Any:
        """Raises a ValueError: only its name is known."""
        raise ValueError(
            f"the run was trained with {self.path}, which its record only names: import it and put it into the "
            "experiment"
        )


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON; what is a user's own is named by its import path, and arrays are elsewhere."""
    return json.dumps(
        _settings_record(experiment) | {"model": model_record(experiment.model)}, indent=2
    )


def _settings_record(experiment: Experiment) -> dict[str, Any]:
    """All of an experiment but its model, as JSON keeps it."""
    record = {
        f.name: getattr(experiment, f.name)
        for f in dataclasses.fields(experiment)
        if f.name != "model"
    }
    record["guard"] = dataclasses.asdict(experiment.guard)
    record["objective"] = _objective_record(experiment.objective)
    record["optimizer"] = _optimizer_record(experiment.optimizer)
    return json.loads(json.dumps(record))


def with_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an experiment with the settings that it lacks, since the version that wrote it had none, added.

    Args:
      record: The object in an ``experiment.json``.
    """
    settings = modern_record({name: value for name, value in record.items() if name != "model"})
    complete = dict(settings)
    with contextlib.suppress(ValueError):
        complete = _settings_record(_experiment(settings, None))
    model = record.get("model")
    with contextlib.suppress(ValueError):
        model = model_record(config_of(model)) if "family" in (model or {}) else model
    return complete | {"model": json.loads(json.dumps(model))}


def _objective_record(objective: Any) -> dict[str, Any]:
    for name, kind in OBJECTIVES.items():
        if type(objective) is kind:
            return {"name": name, **dataclasses.asdict(objective)}
    return _named(objective)


def _optimizer_record(optimizer: Any) -> dict[str, Any]:
    return dataclasses.asdict(optimizer) if type(optimizer) is Optimizer else _named(optimizer)


def _named(value: Any) -> dict[str, Any]:
    """What JSON keeps of a function or an object of a user's own: its path, and the fields of a dataclass."""
    if isinstance(value, Recorded):
        return {"name": value.path, "settings": json.loads(value.settings)}
    settings = {}
    if isinstance(value, optax.GradientTransformation):
        value = value.update
    if isinstance(value, functools.partial):
        settings = {"args": [_shown(arg) for arg in value.args]}
        settings |= {name: _shown(arg) for name, arg in value.keywords.items()}
        value = value.func
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        settings = {
            field.name: _shown(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    named: Any = value if hasattr(value, "__qualname__") else type(value)
    return {"name": f"{named.__module__}.{named.__qualname__}", "settings": settings}


def _shown(value: Any) -> Any:
    """A setting as JSON: plain values as they are, all others as text without places in memory."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_shown(item) for item in value]
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


def model_record(model: Any) -> dict[str, Any]:
    """What JSON keeps of a config or of a ready density."""
    if isinstance(model, Density):
        config = None if model.config is None else model_record(model.config)
        return {"density": f"{type(model).__module__}.{type(model).__qualname__}", "config": config}
    return {"family": model.family, **dataclasses.asdict(model)}


def config_of(record: Any) -> Any:
    """The config in a ``model_record``, of a config or of the density that was built from one.

    Raises:
      ValueError: If there is none: the model was a density of a user's own, or the record is damaged.
    """
    try:
        if "density" in record:
            if record.get("config") is None:
                raise ValueError(
                    f"the model was a ready density, {record['density']}: pass it as density="
                )
            record = record["config"]
        return _build(
            config_class(record["family"]), {k: v for k, v in record.items() if k != "family"}
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"not the record of a model of this version of likejax: {error!r}"
        ) from error


def from_json(text: str) -> Experiment:
    """The experiment of ``to_json``; an objective or optimizer of a user's own comes back as its name, ``Recorded``.

    Raises:
      ValueError: If the text is no experiment, or its model was a density of a user's own.
    """
    try:
        record = json.loads(text)
        model = config_of(record.pop("model"))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"not the record of an experiment of this version of likejax: {error!r}"
        ) from error
    return _experiment(record, model)


def _experiment(record: Mapping[str, Any], model: Any) -> Experiment:
    """The experiment of a ``_settings_record`` and a model."""
    record = modern_record(record)
    try:
        objective = modern_objective(record.get("objective", {}))
        optimizer = {**record.get("optimizer", {})}
        parts = {
            "model": model,
            "objective": _recorded(objective)
            or _build(OBJECTIVES[objective.pop("name", "NLL")], objective),
            "optimizer": _recorded(optimizer) or _build(Optimizer, optimizer),
        }
        return _build(Experiment, {**record, **parts})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"not the record of an experiment of this version of likejax: {error!r}"
        ) from error


def _recorded(record: Mapping[str, Any]) -> Recorded | None:
    """What a record only names, by a dotted path, or ``None`` if it is one of the library's own."""
    name = str(record.get("name", ""))
    return Recorded(name, json.dumps(record.get("settings", {}))) if "." in name else None


def _build(kind: type, record: dict[str, Any]) -> Any:
    """An instance of a dataclass from its record: lists are tuples, records of dataclasses in it are built likewise."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints.get(name), value) for name, value in record.items()})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
        return tuple(_value(inner, item) for item in value)
    is_record = dataclasses.is_dataclass(hint) and not isinstance(value, hint)  # type: ignore[arg-type]
    return _build(hint, {**value}) if is_record else value  # type: ignore[arg-type]
