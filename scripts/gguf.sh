#!/usr/bin/env bash
# Exports a model as GGUF and opens it with the format's own reader, the Python package gguf.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${VIGIA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vigia}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python=$cache/gguf/bin/python
if ! "$python" -c 'import gguf' 2>/dev/null; then
    echo 'installing gguf into a virtual environment (once)' >&2
    python3 -m venv "$cache/gguf"
    "$cache/gguf/bin/pip" install --quiet gguf >&2
fi
cargo build --quiet --package vigia-cli
vigia=target/debug/vigia

# Windows of a server whose load wanders, with sequences of calls.
"$python" - >"$folder/windows.jsonl" <<'PY'
import json

for i in range(200):
    load = 50 + i * 37 % 41
    calls = [{"name": "read", "calls": 4 * load}, {"name": "write", "calls": 3 * load}]
    print(json.dumps({"started_ms": 2000 * i, "duration_ms": 2000, "arch": "x86_64", "target": "server",
                      "calls": 0, "errors": 0, "syscalls": calls,
                      "sequences": {"read>write": 80 + i % 7, "write>read": 80 + i % 5, "read>read>write": 9}}))
PY
# Every kind that there is, as the command itself lists them, and networks with their weights in few bits.
kinds=$("$vigia" train --estimator '?' --input "$folder/windows.jsonl" 2>&1 |
    sed -n 's/.*possible values: \(.*\)]/\1/p' | tr -d ' ' || true)
networks=(autoencoder mlp-classifier)
exported=()
for kind in ${kinds//,/ }; do
    "$vigia" train --input "$folder/windows.jsonl" --output "$folder/$kind.apr" --estimator "$kind" >/dev/null 2>&1
    "$vigia" convert "$folder/$kind.apr" "$folder/$kind.gguf"
    exported+=("$folder/$kind.gguf")
done
for kind in "${networks[@]}"; do
    for bits in q8_0 q4_0; do
        "$vigia" convert "$folder/$kind.apr" "$folder/$kind-$bits.gguf" --quantize "$bits" >/dev/null
        exported+=("$folder/$kind-$bits.gguf")
    done
done
"$python" - "${exported[@]}" <<'PY'
import pathlib
import sys

import numpy
from gguf import GGUFReader

assert len(sys.argv) > 20, "not every kind was exported"
for path in sys.argv[1:]:
    kind, model = pathlib.Path(path).stem, GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in model.tensors}
    assert bytes(model.fields["general.architecture"].parts[-1]) == b"vigia", kind
    assert all(numpy.isfinite(tensor.data).all() for tensor in model.tensors), kind
    if kind == "isolation-forest":
        assert len(tensors["members.0.IsolationForest.nodes"].data) == 100, "a hundred trees"
        nodes = tensors["members.0.IsolationForest.nodes"].data.sum()
        assert len(tensors["members.0.IsolationForest.threshold"].data) == nodes
    if kind == "random-forest":
        leaves = tensors["members.0.RandomForest.nodes.Leaf"].data
        assert numpy.allclose(leaves.sum(axis=1), 1), "shares of a leaf"
    assert len(tensors) < 60, f"{kind}: a list is no tensor an element"
    if kind.endswith(("q8_0", "q4_0")):
        types = {tensor.tensor_type.name for tensor in model.tensors}
        assert kind[-4:].upper() in types, f"{kind}: {types}"
    print(f"{kind}: {len(model.fields)} keys and {len(tensors)} tensors, as the gguf package reads them")
PY
