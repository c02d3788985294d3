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

# Windows of a server whose load wanders.
"$python" - >"$folder/windows.jsonl" <<'PY'
import json

for i in range(200):
    load = 50 + i * 37 % 41
    calls = [{"name": "read", "calls": 4 * load}, {"name": "write", "calls": 3 * load}]
    print(json.dumps({"started_ms": 2000 * i, "duration_ms": 2000, "arch": "x86_64", "target": "server",
                      "calls": 0, "errors": 0, "syscalls": calls}))
PY
"$vigia" train --input "$folder/windows.jsonl" --output "$folder/model.apr" \
    --estimator deviation,isolation-forest,kmeans,lof,pca,random-forest >/dev/null
"$vigia" convert "$folder/model.apr" "$folder/model.gguf"
"$python" - "$folder/model.gguf" <<'PY'
import sys

import numpy
from gguf import GGUFReader

model = GGUFReader(sys.argv[1])
tensors = {tensor.name: tensor for tensor in model.tensors}
assert bytes(model.fields["general.architecture"].parts[-1]) == b"vigia"
assert len(tensors["members.1.IsolationForest.nodes"].data) == 100, "a hundred trees"
nodes = tensors["members.1.IsolationForest.nodes"].data.sum()
assert len(tensors["members.1.IsolationForest.threshold"].data) == nodes
leaves = tensors["members.5.RandomForest.nodes.Leaf"].data
assert numpy.allclose(leaves.sum(axis=1), 1), "shares of a leaf"
assert len(tensors) < 60, "a list is no tensor an element"
assert all(numpy.isfinite(tensor.data).all() for tensor in model.tensors)
print(f"{len(model.fields)} keys and {len(tensors)} tensors, as the gguf package reads them")
PY
