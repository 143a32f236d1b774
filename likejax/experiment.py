"""The frozen record of a training run: model, data, objective, optimiser, schedule."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Generic, Literal, TypeVar

from likejax.density import Density
from likejax.models import config_class
from likejax.objectives import NLL

Model = TypeVar("Model")


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """The update rule and its schedule; built with optax."""

    name: Literal["adam", "adamw", "adamax"] = "adam"
    """Update rule."""
    learning_rate: float = 1e-3
    """Rate after warm-up."""
    b1: float = 0.9
    """Decay of the mean of gradients."""
    b2: float = 0.999
    """Decay of the mean of squared gradients (of their maximum for adamax)."""
    eps: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 0.0
    """Decoupled weight decay, adamw only."""
    warmup_steps: int = 0
    """Steps of linear warm-up from zero."""
    decay: Literal["constant", "cosine"] = "constant"
    """What the rate does after warm-up: stay, or fall to zero along half a cosine."""
    clip_norm: float = 0.0
    """Largest norm of the whole gradient; 0 for no clipping."""


@dataclasses.dataclass(frozen=True)
class Experiment(Generic[Model]):
    """A model, the data it is trained on, and how.

    Attributes:
      model: A family's config, or a ready ``Density``, which is then trained as it is, without initialisation.
    """

    model: Model
    dataset: str = ""
    """Name of the dataset, for ``likejax.load``."""
    levels: int = 0
    """Reduce the images to so many levels; 0 leaves them as they are."""
    augment: tuple[str, ...] = ()
    """Augmentations of training batches: flip, shift."""
    objective: NLL = dataclasses.field(default_factory=NLL)
    """What is minimised."""
    optimiser: Optimiser = dataclasses.field(default_factory=Optimiser)
    """How it is minimised."""
    batch_size: int = 64
    """Examples per step, over all devices."""
    steps: int = 10_000
    """Steps in all."""
    initialise_with: int = 256
    """Training examples for data-dependent initialisation."""
    ema_decay: float = 0.999
    """Decay of the moving average of the parameters, which evaluation uses."""
    validate_every: int = 1_000
    """Steps between validations."""
    validation_examples: int = 1_000
    """Validation examples used to select the best checkpoint."""
    checkpoint_every: int = 1_000
    """Steps between checkpoints."""
    log_every: int = 100
    """Steps between lines of the log."""

    def __post_init__(self):
        for name in ("batch_size", "steps", "validate_every", "checkpoint_every", "log_every", "initialise_with"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"expected ema_decay in [0, 1), got {self.ema_decay}")


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON; a ready density is only named, since its arrays are in the checkpoint."""
    record = {f.name: getattr(experiment, f.name) for f in dataclasses.fields(experiment) if f.name != "model"}
    record |= {name: dataclasses.asdict(record[name]) for name in ("objective", "optimiser")}
    model: Any = experiment.model
    if isinstance(model, Density):
        record["model"] = {"density": f"{type(model).__module__}.{type(model).__qualname__}"}
    else:
        record["model"] = {"family": model.family, **dataclasses.asdict(model)}
    return json.dumps(record, indent=2)


def from_json(text: str) -> Experiment:
    """The experiment of ``to_json``.

    Raises:
      ValueError: If the text is no experiment, or its model was a ready density.
    """
    try:
        record = json.loads(text)
        model = record.pop("model")
        if "density" in model:
            raise ValueError(f"the model was a ready density, {model['density']}: pass it as density=")
        config = config_class(model.pop("family"))
        return Experiment(
            model=_build(config, model),
            objective=_build(NLL, record.pop("objective")),
            optimiser=_build(Optimiser, record.pop("optimiser")),
            **_tuples(record),
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"not the record of an experiment of this version of likejax: {error!r}") from error


def _build(kind: type, record: dict[str, Any]) -> Any:
    return kind(**_tuples(record))


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
