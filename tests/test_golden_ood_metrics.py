"""Metrics against golden numbers of hvae-oodd, scikit-learn and pytorch-ood."""

from __future__ import annotations

import numpy as np
import pytest

from likejax import ood
from tests.golden import golden_files
from tests.paths import GOLDEN

FILES = golden_files("ood_metrics_*.npz")


def cases():
    for path in FILES:
        with np.load(path, allow_pickle=False) as arrays:
            for case in sorted({name.split(".")[0] for name in arrays.files}):
                yield pytest.param(path, case, id=f"{path.stem}-{case}")


@pytest.mark.skipif(not FILES, reason=f"no golden files in {GOLDEN.name}: set LIKEJAX_GOLDEN")
@pytest.mark.parametrize(("path", "case"), list(cases()))
def test_golden_ood_metrics(path, case):
    """Values over the full curve, and over scikit-learn's, which drops collinear points."""
    with np.load(path, allow_pickle=False) as arrays:
        golden = {
            name.split(".", 1)[1]: arrays[name]
            for name in arrays.files
            if name.split(".")[0] == case
        }
    pair = golden["id_scores"], golden["ood_scores"]
    ours = {
        "hvae_AUROC": ood.auroc(*pair),
        "hvae_AUPRC": ood.aupr(*pair),
        "hvae_FPR80": ood.fpr_at_tpr(*pair, 0.8, drop_collinear=True),
        "AP_ood": ood.aupr(*pair),
        "AP_id": ood.aupr(*pair, positive="inside"),
        "AUPR_ood_trapezoid": ood.aupr(*pair, estimator="trapezoid"),
        "AUPR_id_trapezoid": ood.aupr(*pair, positive="inside", estimator="trapezoid"),
        "pytorchood040_AUROC": ood.auroc(*pair),
        "pytorchood040_AUPR-OUT": ood.aupr(*pair, estimator="trapezoid"),
        "pytorchood040_AUPR-IN": ood.aupr(*pair, positive="inside", estimator="trapezoid"),
        "pytorchood040_FPR95TPR": ood.fpr_at_tpr(*pair, 0.95),
    }
    for percent in (80, 90, 95):
        ours[f"FPR{percent}_full"] = ood.fpr_at_tpr(*pair, percent / 100)
        dropped = ood.fpr_at_tpr(*pair, percent / 100, drop_collinear=True)
        ours[f"FPR{percent}_sklearn_default_drop_intermediate"] = dropped
    for name, value in ours.items():
        np.testing.assert_allclose(value, golden[name], atol=1e-12, rtol=0, err_msg=name)
    false_rate, true_rate = ood.roc_curve(*pair, drop_collinear=True)
    np.testing.assert_allclose(false_rate, golden["sk_roc_fpr"], atol=1e-12)
    np.testing.assert_allclose(true_rate, golden["sk_roc_tpr"], atol=1e-12)
    table = ood.evaluate_scores(*pair, resamples=3)
    assert table["auroc"].value == pytest.approx(golden["hvae_AUROC"], abs=1e-12)
    assert table["aupr_in"].value == pytest.approx(golden["AP_id"], abs=1e-12)
    assert table["fpr80"].value == pytest.approx(golden["FPR80_full"], abs=1e-12)
