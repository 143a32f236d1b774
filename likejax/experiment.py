"""The frozen record of a training run: model, data, objective, optimiser, schedule."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Annotated, Any, Generic, Literal, TypeVar

from likejax.data.augment import check_augmentation
from likejax.data.dataset import Dataset
from likejax.density import Density
from likejax.models import config_class
from likejax.objectives import ELBO, NLL, OBJECTIVES
from likejax.settings import Count, CountOrZero, Fraction, NonNegative, Positive, Range, Settings

Model = TypeVar("Model")


@dataclasses.dataclass(frozen=True)
class Optimiser(Settings):
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
            raise ValueError(f"expected guard.spike_factor above 1, or 0 for none, got {self.spike_factor}")


@dataclasses.dataclass(frozen=True)
class Experiment(Settings, Generic[Model]):
    """A model, the data it is trained on, and how.

    Attributes:
      model: A family's config, or a ready ``Density``, which is then trained as it is, without initialisation.
    """

    model: Model
    dataset: str = ""
    """Name of the dataset, for ``likejax.load``."""
    levels: CountOrZero = 0
    """Reduce the images to so many levels; 0 leaves them as they are."""
    augment: tuple[str, ...] = ()
    """Augmentations of training batches: flip, shift, binarise, mutate:RATE."""
    objective: NLL | ELBO = dataclasses.field(default_factory=NLL)
    """What is minimised."""
    optimiser: Optimiser = dataclasses.field(default_factory=Optimiser)
    """How it is minimised."""
    guard: Guard = dataclasses.field(default_factory=Guard)
    """Which steps are skipped."""
    batch_size: Count = 64
    """Examples per step, over all devices."""
    accumulate: Count = 1
    """Parts that a batch is cut into, one after the other in memory; their gradients are averaged."""
    steps: Count = 10_000
    """Steps in all."""
    initialise_with: Count = 256
    """Training examples for data-dependent initialisation."""
    ema_decay: Fraction = 0.999
    """Decay of the moving average of the parameters, which evaluation uses."""
    validate_every: Count = 1_000
    """Steps between validations."""
    validation_examples: Count = 1_000
    """Validation examples used to select the best checkpoint."""
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
    """Devices over which parameters, moving average and optimiser state are divided; 1 for a copy on each device."""

    def _check_together(self):
        if self.levels == 1:
            raise ValueError("expected levels of at least 2, or 0 to leave the data as they are, got 1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"expected a batch_size divisible by accumulate={self.accumulate}, got {self.batch_size}")
        for spec in self.augment:
            check_augmentation(spec)
        if "binarise" in self.augment[:-1]:
            raise ValueError(f"expected binarise as the last augmentation, got {', '.join(self.augment)}")

    @property
    def binarises(self) -> bool:
        """Whether training batches are binarised, each anew."""
        return "binarise" in self.augment

    def as_evaluated(self, dataset: Dataset) -> Dataset:
        """A dataset as evaluation sees it: reduced to ``levels``, or one fixed draw of the binarisation (seed 0)."""
        if self.levels and dataset.levels != self.levels:
            dataset = dataset.reduce_levels(self.levels)
        return dataset.binarise(0) if self.binarises and dataset.levels != 2 else dataset


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON; a ready density is named, with its config if it has one: its arrays are elsewhere."""
    record = {f.name: getattr(experiment, f.name) for f in dataclasses.fields(experiment) if f.name != "model"}
    record |= {name: dataclasses.asdict(record[name]) for name in ("objective", "optimiser", "guard")}
    record["objective"] = {"name": type(experiment.objective).__name__, **record["objective"]}
    return json.dumps(record | {"model": model_record(experiment.model)}, indent=2)


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
                raise ValueError(f"the model was a ready density, {record['density']}: pass it as density=")
            record = record["config"]
        return _build(config_class(record["family"]), {k: v for k, v in record.items() if k != "family"})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the record of a model of this version of likejax: {error!r}") from error


def from_json(text: str) -> Experiment:
    """The experiment of ``to_json``.

    Raises:
      ValueError: If the text is no experiment, or its model was a density of a user's own.
    """
    try:
        record = json.loads(text)
        model = config_of(record.pop("model"))
        objective = {**record.pop("objective", {})}
        objective = _build(OBJECTIVES[objective.pop("name", "NLL")], objective)
        return _build(Experiment, record | {"model": model, "objective": objective})
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not the record of an experiment of this version of likejax: {error!r}") from error


def _build(kind: type, record: dict[str, Any]) -> Any:
    """An instance of a dataclass from its record: lists are tuples, records of dataclasses in it are built likewise."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints.get(name), value) for name, value in record.items()})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
        return tuple(_value(inner, item) for item in value)
    return _build(hint, {**value}) if dataclasses.is_dataclass(hint) and not isinstance(value, hint) else value  # type: ignore[arg-type]
