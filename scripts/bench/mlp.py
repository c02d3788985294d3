"""A multilayer perceptron, one row at a time, as the peer of `cargo bench -p vigia-model`.

Reads a word a line (`numpy` or `torch`) and answers with nanoseconds a row, `nan` where that library is not
installed. Arguments: the widths of the layers.
"""

import sys
import time

import numpy

COUNT = 200


def measured(row):
    row()
    start = time.perf_counter_ns()
    for _ in range(COUNT):
        row()
    return (time.perf_counter_ns() - start) / COUNT


def main():
    widths = list(map(int, sys.argv[1:]))
    random = numpy.random.default_rng(2)
    layers = [
        (random.standard_normal((a, b)).astype(numpy.float32), numpy.zeros(b, numpy.float32))
        for a, b in zip(widths, widths[1:])
    ]
    x = random.standard_normal((1, widths[0])).astype(numpy.float32)

    def by_numpy():
        y = x
        for i, (weights, bias) in enumerate(layers):
            y = y @ weights + bias
            if i + 1 < len(layers):
                y = numpy.maximum(y, 0)
        return ((y - x) ** 2).mean()

    try:
        import torch

        torch.set_num_threads(1)
        modules = []
        for a, b in zip(widths, widths[1:]):
            modules += [torch.nn.Linear(a, b), torch.nn.ReLU()]
        network, row = torch.nn.Sequential(*modules[:-1]), torch.from_numpy(x)

        def by_torch():
            with torch.inference_mode():
                return ((network(row) - row) ** 2).mean()

    except ImportError:
        by_torch = None

    runs = {"numpy": by_numpy, "torch": by_torch}
    for line in sys.stdin:
        run = runs[line.strip()]
        print(measured(run) if run else "nan", flush=True)


main()
