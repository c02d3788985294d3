#!/usr/bin/env python3
"""Makes the fixtures that the metrics and estimators are held against: scikit-learn's answers on random data.

    python3 -m venv .vigia/venv && .vigia/venv/bin/pip install numpy scikit-learn && .vigia/venv/bin/python scripts/fixtures.py

The same versions and seeds make the same files.
"""
import json
import math
import pathlib

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

ROOT = pathlib.Path(__file__).resolve().parent.parent
EVAL = ROOT / "eval" / "tests" / "fixtures"


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=None, separators=(",", ":")) + "\n")


def metrics():
    rng = np.random.default_rng(5)
    out = []
    # Without ties, with many, with rare positives, and all scores alike.
    for n, levels, share in ((60, None, 0.4), (80, 5, 0.3), (120, 12, 0.05), (30, 1, 0.5), (100, 40, 0.9)):
        labels = rng.random(n) < share
        labels[:2] = [True, False]
        scores = rng.normal(size=n) + labels
        if levels:
            scores = np.floor((scores - scores.min()) / (np.ptp(scores) + 1e-9) * levels)
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        out.append({
            "scores": scores.tolist(),
            "labels": labels.tolist(),
            "roc_auc": roc_auc_score(labels, scores),
            "average_precision": average_precision_score(labels, scores),
            "tpr_at_10fpr": tpr[fpr <= 0.1].max(),
        })
    return out


def nab():
    """A second reading of the benchmark's paper, kept as plain as can be."""

    def sigmoid(y):
        return -1.0 if y > 3 else 2 / (1 + math.exp(5 * y)) - 1

    rng = np.random.default_rng(6)
    out = []
    for rows, windows in ((1000, [(200, 299), (600, 649)]), (4032, [(1000, 1401), (3000, 3399)]), (6000, [(900, 1000)]),
                          (1500, [(300, 300), (700, 800)]), (2000, []), (1243, [(407, 468), (964, 1025)])):
        alarms = sorted(rng.choice(rows, 25, replace=False).tolist())
        total = 0.0
        for a, b in windows:
            inside = [i for i in alarms if a <= i <= b and i >= min(math.floor(0.15 * rows), 750)]
            total += max((sigmoid(-(b - i + 1) / (b - a + 1)) / sigmoid(-1.0) for i in inside), default=-1.0)
        for i in alarms:
            if i < min(math.floor(0.15 * rows), 750) or any(a <= i <= b for a, b in windows):
                continue
            before = [w for w in windows if w[1] < i]
            if not before:
                y = math.inf
            else:
                a, b = max(before, key=lambda w: w[1])
                y = (i - b) / (b - a) if b > a else math.inf
            total += 0.11 * sigmoid(y)
        out.append({"rows": rows, "windows": windows, "alarms": alarms, "sum": total})
    return out


def main():
    write(EVAL / "metrics.json", metrics())
    write(EVAL / "nab.json", nab())


if __name__ == "__main__":
    main()
