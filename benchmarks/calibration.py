"""False-alarm rates of a report's inside scores, over many cuts: do thresholds hold?

    likejax ood RUN --outside noise --data-dir DATA
    python benchmarks/calibration.py RUN/ood/report.json [--calibration 1000] [--test 1000]

For every score of the report: the mean false-alarm rate of the marginal threshold at alpha against
``k / (n + 1)`` with ``k = floor(alpha (n + 1))``, in standard errors, and the share of rates inside
the 90 % interval of ``BetaBinomial(m, k, n + 1 - k)``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats

from likejax import ood


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--fpr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    report = json.loads(a.report.read_text())
    inside = report["sets"][0]["name"]
    for score in report["scores"]:
        values = np.array(score["values"][inside], float)  # "Infinity" is one too
        n, m = a.calibration, a.test
        if n + m > len(values):  # groups are fewer
            n = m = len(values) // 2
        rates = ood.false_alarm_rates(
            values, calibration=n, test=m, fpr=a.fpr, repeats=a.repeats, seed=a.seed
        )
        k = ood.rank_of_threshold(n, a.fpr)
        law = stats.betabinom(m, k, n + 1 - k)
        low, high = law.ppf([0.05, 0.95]) / m
        error = law.std() / m / a.repeats**0.5
        covered = np.mean((rates >= low) & (rates <= high))
        print(
            f"{score['label']:24} n = {n}, m = {m}: "
            f"mean rate {rates.mean():.5f} against {k / (n + 1):.5f} "
            f"({(rates.mean() - k / (n + 1)) / error:+.1f} standard errors), "
            f"{covered:.1%} in [{low:.4f}, {high:.4f}]"
        )


if __name__ == "__main__":
    main()
