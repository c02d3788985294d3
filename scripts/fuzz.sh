#!/usr/bin/env bash
# Fuzzes one target: scripts/fuzz.sh <crate>/fuzz <target> [libFuzzer options]. Coverage comes from LLVM's own
# pass, so the stable compiler does; without nightly's standard library there is no address sanitizer.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?folder of the fuzz crate, such as model/fuzz}
target=${2:?name of the target, such as artifact}
shift 2

cd "$folder"
triple=$(rustc -vV | sed -n 's/^host: //p')
# The triple keeps the flags from build scripts and from the programs that run at build time.
export CARGO_TARGET_DIR=target
flags="--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
corpus=corpus/$target
mkdir -p "$corpus"
if [ -z "$(ls -A "$corpus")" ]; then
  cargo run --quiet --locked --release --bin seeds -- "$corpus"
fi
CARGO_ENCODED_RUSTFLAGS=$(tr ' ' '\037' <<<"$flags" | tr -d '\n') \
  cargo build --locked --release --target "$triple" --bin "$target"
exec "target/$triple/release/$target" -timeout=10 -rss_limit_mb=1024 "$@" "$corpus"
