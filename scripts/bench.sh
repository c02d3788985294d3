#!/usr/bin/env bash
# Measures, and prints one table of the rows in target/bench/*.json (one object each: name, unit, ours, peers,
# ratio, target, holds).
#
#   scripts/bench.sh            run every benchmark, then the table
#   scripts/bench.sh table      the table of what was measured before
#
# loop.retrain is measured where the loop runs: by the story in e2e/tests/closed_loop.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=$PWD/target/bench
cache="${VIGIA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vigia}"
say() { printf 'bench: %s\n' "$*" >&2; }

# A Python with scikit-learn, to compare with: the machine's, or one made once in the cache, which has torch too where
# pip finds it in its index within 15 minutes.
python() {
    local candidate
    for candidate in "${BENCH_PYTHON:-}" python3 "$cache/python/bin/python"; do
        if [[ -n $candidate ]] && "$candidate" -c 'import sklearn' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say 'installing scikit-learn into a virtual environment (once)'
    python3 -m venv "$cache/python" && "$cache/python/bin/pip" install --quiet scikit-learn >&2 || return
    say 'installing torch beside it (once, some GB; 15 minutes at the most)'
    timeout 900 "$cache/python/bin/pip" install --quiet torch >&2 ||
        say 'no torch could be had: mlp.* will be without it'
    echo "$cache/python/bin/python"
}

table() {
    local -a rows=("$out"/*.json)
    [[ -e ${rows[0]} ]] || { say 'nothing has been measured yet'; exit 1; }
    jq --raw-output --slurp '
        def short: if type == "number" then (. * 1000 | round / 1000 | tostring) else (. // "-" | tostring) end;
        (["name", "unit", "ours", "peers", "ratio", "target", "holds"]),
        (.[] | [.name, .unit, (.ours | short), ([(.peers // {}) | to_entries[] | "\(.key) \(.value | short)"] | join(", ")),
                (.ratio | short), (.target | short), (.holds | if . == true then "yes" elif . == false then "NO" else "-" end)])
        | @tsv' "${rows[@]}" | column -t -s $'\t'
}

if [[ ${1:-} == table ]]; then
    table
    exit
fi
mkdir -p "$out"
BENCH_PYTHON=$(python || true)
export BENCH_PYTHON BENCH_OUT=$out
[[ -n $BENCH_PYTHON ]] || say 'no scikit-learn could be had: rows will be without it'
# Every bench target there is, wherever its file lies.
targets=$(cargo metadata --no-deps --format-version 1 |
    jq --raw-output '.packages[] | .name as $package | .targets[] | select(.kind == ["bench"]) | "\($package) \(.name)"')
failed=()
while read -r package name; do
    say "$package: $name"
    cargo bench --quiet --package "$package" --bench "$name" </dev/null >&2 || failed+=("$name")
done <<<"$targets"
say 'the loop, on a cluster of three nodes (8 min)'
scripts/build-images.sh
cargo nextest run --package vigia-e2e --ignore-default-filter --filterset 'binary(closed_loop) and test(a_workload_is_learnt)' >&2
table
if ((${#failed[@]})); then
    say "these stopped before their end, see above: ${failed[*]}"
    exit 1
fi
