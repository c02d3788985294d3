#!/usr/bin/env bash
# Judges the estimators on the evaluation data and writes target/eval/*.json. DATA names the folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data=${DATA:-../shared/data}
if [[ ! -d $data ]]; then
    printf 'eval: no folder %s: say where the evaluation data is, as in make eval DATA=/path/to/data\n' "$data" >&2
    exit 2
fi
code=$(git describe --always --dirty 2>/dev/null || echo unknown)
exec cargo run --quiet --release --package vigia-eval -- --data "$data" --code "$code"
