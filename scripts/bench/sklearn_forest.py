"""scikit-learn's IsolationForest as the peer of `cargo bench -p vigia-model`.

Reads a word a line (`batched` or `single`) and answers with nanoseconds a vector, so that the caller can
take turns with it. Arguments: trees, features, rows.
"""

import sys
import time

import numpy
from sklearn.ensemble import IsolationForest


def main():
    trees, features, rows = map(int, sys.argv[1:])
    random = numpy.random.default_rng(2)
    data = random.standard_normal((rows, features)).astype(numpy.float32)
    forest = IsolationForest(n_estimators=trees, max_samples=256, random_state=1).fit(data)

    def batched():
        start = time.perf_counter_ns()
        forest.score_samples(data)
        return (time.perf_counter_ns() - start) / rows

    def single(count=8):
        start = time.perf_counter_ns()
        for row in data[:count]:
            forest.score_samples(row.reshape(1, -1))
        return (time.perf_counter_ns() - start) / count

    batched()
    for line in sys.stdin:
        print({"batched": batched, "single": single}[line.strip()](), flush=True)


main()
