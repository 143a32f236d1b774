"""``likejax evaluate``: the log-likelihood of a dataset under a trained run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

from likejax.cli.options import ConditionOptions, ScoringOptions, WeightsOption
from likejax.cli.places import check_writable, experiment_of, load_as_evaluated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(WeightsOption, ConditionOptions, ScoringOptions):
    """Bits/dim of a dataset under a trained run, with standard error and kind.

    A conditional model takes the labels or the conditions of the dataset, or, for all examples, the
    one of --label or --condition.
    """

    dataset: str | None = None
    """Name of the dataset; the one that the run was trained on if not given."""
    split: Literal["train", "validation", "test"] = "test"
    """Part of the dataset."""
    json: Path | None = None
    """File that the numbers are written to as well."""

    def __call__(self) -> int:
        """Evaluates and prints; returns the exit code."""
        import jax

        import likejax as lj

        if self.json is not None:
            check_writable(self.json, option="--json")
        experiment = experiment_of(self.run)
        density = lj.restore(self.run, which=self.which)
        if self.condition_in_words:
            density = self.at_condition(density)
        name = experiment.dataset if self.dataset is None else self.dataset
        data = load_as_evaluated(experiment, name, split=self.split, data_dir=self.data_dir)
        evaluation = lj.evaluate(
            density,
            data,
            key=jax.random.key(self.seed),
            draws=self.draws,
            batch_size=self.batch_size,
            devices=self.chosen_devices(),
        )
        if self.condition_in_words:
            of_what = f"{evaluation.dataset}, all under {self.condition_in_words}"
            evaluation = dataclasses.replace(evaluation, dataset=of_what)
        # written first, since printing may fail where the output is a full disk
        if self.json is not None and jax.process_index() == 0:
            self.json.write_text(json.dumps(evaluation.to_dict(), indent=2))
        print(evaluation)
        return 0
