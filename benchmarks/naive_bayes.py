"""Naive Bayes against logistic regression: test error by the number of training examples.

    python benchmarks/naive_bayes.py [--data-dir DATA]

The experiment of Ng and Jordan (2002, On discriminative vs. generative classifiers, NIPS 14) on
small images: ``digits`` with its ten classes and, as in the paper, with its twos and threes alone;
and with ``--data-dir`` MNIST at 8x8. A generative classifier and the discriminative one of the same
linear form are fitted to the first ``n`` rows of a permutation of the training part, at least one
of each class, and tested on the whole test part. Printed are means over the permutations, and the
standard deviation between these.

The pairs are naive Bayes with normal pixels that have one variance for all classes, and logistic
regression of the pixels from 0 to 1; and both for pixels that are made black or white, counted with
add-one smoothing. Priors are those of the labels, with add-one smoothing. The logistic regressions
are scikit-learn's: with hardly any penalty (C = 1e4), as in the paper, and with its own (C = 1).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import likejax as lj

SIZES = (2, 4, 6, 10, 20, 40, 80, 160, 320, 640, 1_000, 2_500, 5_000, 10_000)
FLOOR = 0.01
"""Part of the mean variance of a pixel that is added to every variance."""


def as_table(images: lj.Dataset) -> lj.Dataset:
    """Pixels as floats from 0 to 1, one row an image."""
    assert images.levels is not None
    rows = images.examples.reshape(len(images), -1).astype(np.float32) / (images.levels - 1)
    return lj.Dataset.from_array(rows, labels=images.labels, class_names=images.class_names)


def error_of(density: lj.Density, train: lj.Dataset, test: lj.Dataset) -> float:
    """Test error of the classifier that Bayes' rule makes of a density."""
    classifier = lj.Classifier(density, lj.Classifier.log_prior_of(train))
    return 1 - classifier.evaluate(test, batch_size=2_000).accuracy


def gaussian(train: lj.Dataset, test: lj.Dataset) -> float:
    """Test error of naive Bayes with normal pixels of one variance for all classes."""
    train, test = as_table(train), as_table(test)
    density = lj.models.GaussianNaiveBayes.fit(train, variance="shared", floor=FLOOR)
    return error_of(density, train, test)


def counted(train: lj.Dataset, test: lj.Dataset) -> float:
    """Test error of naive Bayes with counted values of black and white pixels."""
    train, test = train.reduce_levels(2), test.reduce_levels(2)
    return error_of(lj.models.NaiveBayes.fit(train), train, test)


def logistic(penalty: float) -> Callable[[lj.Dataset, lj.Dataset], float]:
    """Returns a function that gives the test error of logistic regression.

    Args:
      penalty: scikit-learn's ``C``: large for a weak penalty.
    """

    def error(train: lj.Dataset, test: lj.Dataset) -> float:
        train, test = as_table(train), as_table(test)
        model = LogisticRegression(C=penalty, max_iter=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 300 steps suffice for the error
            model.fit(train.examples, train.labels)
        return 1 - float(model.score(test.examples, test.labels))

    return error


def logistic_of_two_levels(train: lj.Dataset, test: lj.Dataset) -> float:
    """Test error of logistic regression of black and white pixels, with hardly any penalty."""
    return logistic(1e4)(train.reduce_levels(2), test.reduce_levels(2))


METHODS = {
    "naive Bayes": gaussian,
    "logistic, C = 1e4": logistic(1e4),
    "logistic, C = 1": logistic(1.0),
    "naive Bayes, black and white": counted,
    "logistic, black and white": logistic_of_two_levels,
}


def twos_and_threes(images: lj.Dataset) -> lj.Dataset:
    """The twos and threes alone, as two classes."""
    assert images.labels is not None
    chosen = images.take(np.isin(images.labels, (2, 3)))
    assert chosen.labels is not None
    return lj.Dataset.from_array(
        chosen.examples, levels=chosen.levels, labels=chosen.labels - 2, class_names=("2", "3")
    )


def with_every_class(train: lj.Dataset, rng: np.random.Generator) -> lj.Dataset:
    """The training part in random order, which begins with one example of every class."""
    assert train.labels is not None
    order = rng.permutation(len(train))
    _, first = np.unique(train.labels[order], return_index=True)
    rest = np.delete(np.arange(len(train)), first)
    return train.take(order[np.concatenate([first, rest])])


def study(name: str, train: lj.Dataset, test: lj.Dataset, draws: int, seed: int) -> None:
    """Prints the table of one dataset."""
    least = train.num_classes or 1
    sizes = [n for n in SIZES if least <= n < len(train)]
    if sizes[-1] < SIZES[-1]:
        sizes.append(len(train))
    errors = np.zeros((draws, len(sizes), len(METHODS)))
    rng = np.random.default_rng(seed)
    for draw in range(draws):
        shuffled = with_every_class(train, rng)
        for i, n in enumerate(sizes):
            errors[draw, i] = [method(shuffled[:n], test) for method in METHODS.values()]
    print(f"\n{name}: test error in %, {draws} permutations, {len(test)} test images\n")
    print("| examples |", " | ".join(METHODS), "|")
    print("|---" * (len(METHODS) + 1) + "|")
    for i, n in enumerate(sizes):
        means, deviations = 100 * errors[:, i].mean(0), 100 * errors[:, i].std(0, ddof=1)
        pairs = zip(means, deviations, strict=True)
        cells = [f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in pairs]
        print(f"| {n:,} |", " | ".join(cells), "|")


def main() -> None:
    """Runs the experiment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST; only digits without it")
    parser.add_argument("--draws", type=int, default=20, help="permutations of digits")
    parser.add_argument("--mnist-draws", type=int, default=5, help="permutations of MNIST")
    parser.add_argument("--seed", type=int, default=0, help="seed of the permutations")
    arguments = parser.parse_args()
    start = time.perf_counter()
    digits = [lj.load("digits", split=split) for split in ("train", "test")]
    study("digits", *digits, arguments.draws, arguments.seed)
    pair = map(twos_and_threes, digits)
    study("digits, twos and threes", *pair, arguments.draws, arguments.seed)
    if arguments.data_dir is not None:
        name = "mnist+resize:8x8"
        parts = ("train", "test")
        mnist = [lj.load(name, split=split, data_dir=arguments.data_dir) for split in parts]
        study(name, *mnist, arguments.mnist_draws, arguments.seed)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
