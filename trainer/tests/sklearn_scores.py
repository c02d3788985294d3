"""Prints the table in oracle.rs: scores that scikit-learn's IsolationForest gives to the probes there.

Windows are made by the same rule as in oracle.rs, so that no data file is needed. Run it with a Python that has
numpy and scikit-learn, and paste what it prints. The width is that of feature schema vigia.syscalls.v1.
"""

import math
import sys

import numpy as np
from sklearn.ensemble import IsolationForest

WIDTH = int(sys.argv[1])
MASK = (1 << 64) - 1
state = 1


def unit():
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) & MASK
    return (state >> 40) / (1 << 24)


def window():
    """Twelve system calls under one load, six that come now and then, and all the rest never."""
    row = [0.0] * WIDTH
    load = 0.5 + unit()
    for k in range(12):
        row[k] = math.log1p(load * (1 + 40 * k) * (0.8 + 0.4 * unit()) / 0.1)
    for k in range(12, 18):
        if unit() < 0.05:
            row[k] = 1 + 3 * unit()
    return row


rows = np.array([window() for _ in range(1000)], dtype=np.float32)
probes = [list(rows[0]), [0.0] * WIDTH]
for k in range(2, 6):
    probe = list(rows[k])
    probe[0] += 1.5 * k
    probe[11] -= k
    probes.append(probe)
for k in range(6, 10):
    probe = list(rows[k])
    for rare in range(12, 12 + k - 5):
        probe[rare] = 3.0
    probes.append(probe)
probes = np.array(probes, dtype=np.float32)
# Forests of other seeds differ by up to .008; their mean is steadier.
forests = [IsolationForest(n_estimators=4000, max_samples=256, random_state=seed).fit(rows) for seed in range(4)]
scores = np.mean([-forest.score_samples(probes) for forest in forests], axis=0)
print(", ".join(f"{score:.4f}" for score in scores))
