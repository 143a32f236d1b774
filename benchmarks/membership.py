"""Which digits was a PixelCNN++ trained on? Members against new digits, by four statistics.

    python benchmarks/membership.py [--members 200] [--steps 1000] [--resamples 1000]

Two PixelCNN++ of the same size: one is over-fitted to the members, few training digits without
dropout; the other is trained on nearly all training digits with dropout, and has the weights that
were best on validation. Members are the positive class. AUROC has DeLong's interval; the
true-positive rate at a false-positive rate of 1 % is the share of members that are recognized while
1 % of the new digits are taken for members. The published statistics are Min-K% and Min-K%++ with
k = 20.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import jax
import numpy as np

import likejax as lj
from likejax import ood

SCORES = (
    ood.NegativeLogProb(),
    ood.MinK(percent=20),
    ood.MinKPlus(percent=20),
    ood.Curvature(scale=1.0, draws=16),
    ood.Curvature(scale=1.0, draws=16, standardize=True),
)
HELD_OUT = 158
"""Training digits that neither model sees: with the test digits there are 517 new ones."""


def experiment(steps: int, *, dropout: float) -> lj.Experiment:
    model = lj.models.PixelCNNConfig(
        event_shape=(8, 8, 1),
        levels=17,
        filters=16,
        blocks=1,
        resolutions=1,
        mixtures=3,
        dropout=dropout,
    )
    optimizer = dataclasses.replace(lj.preset("pixelcnn/digits").optimizer, learning_rate=2e-3)
    return lj.Experiment(
        model=model,
        optimizer=optimizer,
        batch_size=40,
        steps=steps,
        ema_decay=0.99,
        validate_every=100,
        log_every=100,
    )


def rows(density: lj.Density, members: np.ndarray, new: np.ndarray, resamples: int) -> list[str]:
    """A row of the table for every statistic."""
    lines = []
    for recipe in SCORES:
        score = recipe.fit(density, new[:128], key=jax.random.key(1))
        # a member has a low OOD score: it is the positive class with the sign turned
        of_new = -score(new, key=jax.random.key(2))
        of_members = -score(members, key=jax.random.key(3))
        found = ood.evaluate_scores(of_new, of_members, resamples=resamples)
        cells = [recipe.label, *(str(found[name]) for name in ("auroc", "tpr_at_1", "tpr_at_01"))]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    start = time.perf_counter()
    train, valid, test = (lj.load("digits", split=s) for s in ("train", "validation", "test"))
    seen, kept = train.examples[:-HELD_OUT], train.examples[-HELD_OUT:]
    members, new = seen[: arguments.members], np.concatenate([test.examples, kept])
    fits = {
        "over-fitted": lj.fit(experiment(arguments.steps, dropout=0.0), members, key=0),
        "well-fitted": lj.fit(
            experiment(arguments.steps, dropout=0.3), seen, validation=valid.examples, key=0
        ),
    }
    for name, run in fits.items():
        known, unknown = lj.evaluate(run.density, members), lj.evaluate(run.density, new)
        print(f"\n{name}, {run.best_step} steps: members {known}; new {unknown}\n")
        print("| statistic of membership | AUROC | TPR at FPR 1 % | TPR at FPR 0.1 % |")
        print("|---|---|---|---|")
        print("\n".join(rows(run.density, members, new, arguments.resamples)), flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
