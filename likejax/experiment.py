"""The frozen record of a training run: model, data, objective, optimizer, schedule."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

import optax

from likejax.data.augment import check_augmentation
from likejax.data.dataset import Dataset
from likejax.legacy import modern_record
from likejax.objectives import ELBO, NLL
from likejax.records import Recorded, class_at, class_path, from_record, to_record
from likejax.settings import (
    Count,
    CountOrOff,
    CountOrZero,
    Fraction,
    LevelsOrOff,
    NoneIsOff,
    NonNegative,
    Positive,
    PositiveOrOff,
    Range,
    Settings,
    override,
)
from likejax.storage.density import config_of, model_record

Model = TypeVar("Model")


@dataclasses.dataclass(frozen=True)
class Optimizer(Settings):
    """Settings of the update rule and its schedule; built with optax.

    In place of these settings, an ``Experiment`` takes any ``optax.GradientTransformation``, with
    its own schedule and masks.

    Example:
      >>> import likejax as lj, optax
      >>> lj.Optimizer(name="adamw", weight_decay=1e-4, decay_mask="matrices").learning_rate
      0.001
      >>> schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1_000)
      >>> lj.Optimizer(name="adamax", schedule=schedule).schedule is schedule
      True
    """

    name: Literal["adam", "adamw", "adamax"] = "adam"
    """Update rule."""
    learning_rate: Positive = 1e-3
    """Learning rate after warm-up."""
    b1: Fraction = 0.9
    """Decay of the mean of gradients."""
    b2: Fraction = 0.999
    """Decay of the mean of squared gradients (of their maximum for adamax)."""
    eps: NonNegative = 1e-8
    """Term added to the denominator for numerical stability."""
    eps_root: NonNegative = 0.0
    """Term added to the mean of squared gradients, inside the root; adam and adamw."""
    weight_decay: NonNegative = 0.0
    """Weight decay: decoupled from the gradient in adamw, added to it (L2) in adam and adamax."""
    decay_mask: Literal["all", "matrices"] = "all"
    """Parameters that the weight decay shrinks: all, or those with two or more axes."""
    warmup_steps: CountOrZero = 0
    """Steps of linear warm-up from zero."""
    decay: Literal["constant", "cosine", "linear", "exponential"] = "constant"
    """Course of the rate after warm-up: constant, to zero at the last step, or by decay_rate."""
    decay_rate: Annotated[float, Range(above=0, at_most=1)] = 0.999995
    """Factor per step of the exponential decay."""
    clip_norm: PositiveOrOff = None
    """Largest norm of the whole gradient; ``None`` for no clipping."""
    clip_adaptive: PositiveOrOff = None
    """Largest ratio of a unit's gradient norm to its weight norm (Brock et al., 2021); ``None`` for
    no such clipping."""
    schedule: Callable | None = None
    """Optax schedule, from a step to a learning rate, in place of the settings of the rate."""

    def _check_together(self):
        if self.eps_root and self.name == "adamax":
            raise ValueError(
                "expected Optimizer.eps_root=0 for adamax, which has no such term, got "
                f"{self.eps_root}"
            )
        default = type(self)
        if self.decay != "exponential" and self.decay_rate != default.decay_rate:
            raise ValueError(
                f"expected Optimizer.decay='exponential' for a decay_rate of {self.decay_rate}, "
                f"got {self.decay!r}, which does not use it"
            )
        if self.schedule is None:
            return
        for name in ("learning_rate", "warmup_steps", "decay"):
            value = getattr(self, name)
            if value != getattr(default, name):
                raise ValueError(
                    f"expected Optimizer.schedule=None for {name}={value!r}: a schedule defines "
                    "the rate of every step"
                )


@dataclasses.dataclass(frozen=True)
class Guard(Settings):
    """Rule for steps that are not taken: those not finite, and those whose gradient explodes.

    The reference is a running geometric mean of gradient norms. A spike doubles it, so a regime of
    larger gradients is accepted after a few steps and nothing is skipped for ever.

    Example:
      >>> import likejax as lj
      >>> lj.preset("glow/digits").override({"guard.patience": 3}).guard.patience
      3
    """

    spike_factor: Annotated[Annotated[float, Range(above=1)] | None, NoneIsOff()] = 20.0
    """Multiple of the reference above which a gradient norm is a spike; ``None`` to look for
    none."""
    after: CountOrZero = 50
    """Steps before spikes are looked for, while the reference settles."""
    patience: Count = 10
    """Skipped steps in a row that stop the run."""


@dataclasses.dataclass(frozen=True)
class Experiment(Settings, Generic[Model]):
    """A model, the data it is trained on, and how.

    Attributes:
      model: A family's config, or a ready ``Density``, which is then trained as it is, without
        initialization.

    Example:
      >>> import likejax as lj
      >>> experiment = lj.Experiment(lj.models.VectorGlowConfig(), dataset="moons", steps=500)
      >>> experiment.steps
      500
    """

    model: Model
    dataset: str = ""
    """Name of the dataset, for ``likejax.load``."""
    levels: LevelsOrOff = None
    """Reduce the images to so many levels; ``None`` leaves them as they are."""
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
    """Number of parts of a batch that are computed one after the other; gradients are averaged."""
    steps: Count = 10_000
    """Steps in all."""
    initialize_with: Count | None = None
    """Training examples for data-dependent initialization; if None, 256 images, or all rows of a
    table up to 100,000: a column may be constant in a few rows. Of an iterable the first 256 rows,
    if None."""
    ema_decay: Fraction = 0.999
    """Decay of the moving average of the parameters, which evaluation uses."""
    validate_every: Count = 1_000
    """Steps between validations."""
    validation_examples: Count = 1_000
    """Validation examples used to select the best checkpoint."""
    overlap_tolerance: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Largest share of the validation examples that may be among the training examples."""
    early_stopping: CountOrOff = None
    """Validations without a new best that end the run; ``None`` to go on to the last step."""
    checkpoint_every: Count = 1_000
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Newest checkpoints that are kept, besides the best."""
    log_every: Count = 100
    """Steps between lines of the log."""
    samples_every: CountOrOff = None
    """Steps between sheets of samples, PNG files in the run's directory; ``None`` for none."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs tensorboardX)."""
    parameter_shards: Count = 1
    """Number of devices over which parameters and optimizer state are divided; 1 for copies."""

    def _check_together(self):
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"expected a batch_size divisible by accumulate={self.accumulate}, got "
                f"{self.batch_size}"
            )
        for spec in self.augment:
            check_augmentation(spec)
        if "binarize" in self.augment[:-1]:
            raise ValueError(
                f"expected binarize as the last augmentation, got {', '.join(self.augment)}"
            )

    def override(self, values: Mapping[str, Any]) -> Experiment[Model]:
        """Returns the experiment with other settings, named as on the command line.

        Args:
          values: New values by dotted names.

        Raises:
          ValueError: If there is no such setting, with the near match, or a value is not allowed.
          TypeError: If a value is of another type.

        Example:
          >>> import likejax as lj
          >>> lj.preset("glow/digits").override({"optimizer.b1": 0.8, "steps": 10}).steps
          10
        """
        return override(self, values)

    def rows_to_initialize(self, event_shape: tuple[int, ...]) -> int:
        """Returns the largest number of examples that data-dependent initialization looks at.

        Args:
          event_shape: Shape of one example.
        """
        if self.initialize_with is not None:
            return self.initialize_with
        return 100_000 if len(event_shape) == 1 else 256

    @property
    def binarizes(self) -> bool:
        """Whether training batches are binarized, each anew."""
        return "binarize" in self.augment

    def as_evaluated(self, dataset: Dataset) -> Dataset:
        """Returns a dataset as evaluation sees it: reduced to ``levels``, binarized with seed 0.

        Args:
          dataset: Raw examples.
        """
        if self.levels is not None and dataset.levels != self.levels:
            dataset = dataset.reduce_levels(self.levels)
        return dataset.binarize(0) if self.binarizes and dataset.levels != 2 else dataset


def to_json(experiment: Experiment) -> str:
    """Returns an experiment as JSON.

    Classes are named by their import path. Of functions and optax transformations only the names
    are kept; the arrays of a ready density are elsewhere.

    Args:
      experiment: Any experiment.

    Example:
      >>> import likejax as lj
      >>> from likejax.experiment import from_json, to_json
      >>> experiment = lj.preset("glow/digits")
      >>> from_json(to_json(experiment)) == experiment
      True
    """
    return json.dumps(record_of(experiment), indent=2)


def record_of(experiment: Experiment) -> dict[str, Any]:
    """Returns an experiment as the object that ``to_json`` writes.

    Args:
      experiment: Any experiment.
    """
    record = to_record(dataclasses.replace(experiment, model=None))
    return json.loads(json.dumps(record | {"model": model_record(experiment.model)}))


def with_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record of an experiment with the settings that the version that wrote it lacked.

    Args:
      record: Object of an ``experiment.json``.
    """
    record = modern_record(record)
    model = record.pop("model", None)
    complete = dict(record)
    with contextlib.suppress(ValueError):
        complete = to_record(_experiment(record, None))
    return json.loads(json.dumps(complete | {"model": _model_with_defaults(model)}))


def _model_with_defaults(model: Any) -> Any:
    """The record of a config with all settings, or of a density with those of its config."""
    if isinstance(model, Mapping) and "density" in model:
        config = model.get("config")
        return {**model, "config": None if config is None else _model_with_defaults(config)}
    try:
        return model_record(config_of(model))
    except ValueError:
        return model


def from_json(text: str) -> Experiment:
    """Returns the experiment of ``to_json``, also of older versions.

    An objective or an optimizer that the record only names, or whose class is not imported, comes
    back as a ``Recorded``: the run can be read and evaluated, and training asks for the object.

    Args:
      text: Contents of an ``experiment.json``.

    Raises:
      ValueError: If the text is no experiment, its model was a density without a config, or the
        class of its model is not imported.
    """
    try:
        record = modern_record(json.loads(text))
        model = config_of(record.pop("model"))
    except _NO_RECORD as error:
        raise _not_a_record(error) from error
    return _experiment(record, model)


_NO_RECORD = (KeyError, TypeError, AttributeError, json.JSONDecodeError, RecursionError)


def _not_a_record(error: Exception) -> ValueError:
    return ValueError(f"not the record of an experiment of this version of likejax: {error!r}")


def _experiment(record: Mapping[str, Any], model: object) -> Experiment:
    """The experiment of a record without its model, and of a model."""
    record = {**record, "class": class_path(Experiment)}
    for name in ("objective", "optimizer"):
        if name in record:
            record[name] = _named_if_unknown(record[name])
    try:
        experiment = from_record({**record, "model": None}, expected=Experiment)
        return dataclasses.replace(experiment, model=model)
    except _NO_RECORD as error:
        raise _not_a_record(error) from error


def _named_if_unknown(record: object) -> Any:
    """A record whose class is not imported here as one that only names it."""
    if not isinstance(record, Mapping) or "class" not in record:
        return record
    try:
        class_at(record["class"])
    except ValueError:
        settings = {name: value for name, value in record.items() if name != "class"}
        return {"name": record["class"].replace(":", "."), "settings": settings}
    return record
