#!/usr/bin/env bash
# Installs or builds what this machine lacks, once, and says what. A second run finds it all and ends at once.
#
#   scripts/setup.sh build      to compile the workspace
#   scripts/setup.sh test       to run its tests: a test runner, linters, the control plane's programs
#   scripts/setup.sh cluster    to bring a cluster up: the node's programs and tools
#   scripts/setup.sh demo       to show the demo: images, Helm, a workload
#   scripts/setup.sh elsewhere  to show it on a cluster that there is
#   scripts/setup.sh bench      to measure against others
#   scripts/setup.sh all        (default) everything above
#
# Programs of ours are linked into .vigia/bin, which the Makefile puts on PATH. What was built stays in
# ${VIGIA_CACHE:-${XDG_CACHE_HOME:-~/.cache}/vigia} for other checkouts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache="${VIGIA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vigia}"
nextest_version=0.9.151

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi; }

# Debian packages, those that are missing. Nothing that one of them starts as a service is left running.
packages() {
    local package
    local -a missing=()
    for package in "$@"; do
        [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "installing packages: ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d ours=0 log status=0
    log=$(mktemp)
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
        ours=1
    fi
    local -a apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    {
        as_root "${apt[@]}" update &&
            as_root "${apt[@]}" install --yes --no-install-recommends "${missing[@]}"
    } </dev/null >"$log" 2>&1 || status=$?
    [[ $ours == 0 ]] || as_root rm -f "$policy"
    if [[ $status != 0 ]]; then
        tail -n 20 "$log" >&2
        say "the packages could not be installed; the whole log is $log"
        exit 1
    fi
    rm -f "$log"
}

link() {
    mkdir -p .vigia/bin
    local program=$1/$2
    [[ $(readlink ".vigia/bin/$2" || true) == "$program" ]] || ln -sfn "$program" ".vigia/bin/$2"
}

# Programs of a part of e2e/parts, linked under their own names.
part() {
    local folder program
    folder=$(e2e/parts/build.sh --bin "$1")
    for program in "${@:2}"; do link "$folder" "$program"; done
}

nextest() {
    local root="$cache/cargo-nextest-$nextest_version"
    [[ -x $root/bin/cargo-nextest ]] || build_nextest "$root"
    link "$root/bin" cargo-nextest
}

build_nextest() {
    local root=$1 log lock
    mkdir -p "$cache"
    exec {lock}>"$root.lock"
    flock "$lock"
    # Another checkout may have built it while this one waited.
    if [[ ! -x $root/bin/cargo-nextest ]]; then
        say "building cargo-nextest $nextest_version (once)"
        log=$(mktemp)
        # Unoptimised: it compiles in well under half the time, and waits for tests anyway.
        if ! CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-nextest --version "$nextest_version" --locked --debug \
            --no-default-features --features default-no-update --root "$root.new" </dev/null >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            exit 1
        fi
        rm -rf "$root" "$log"
        mv "$root.new" "$root"
    fi
    exec {lock}>&-
}

need_cargo() {
    command -v cargo >/dev/null || {
        say "Rust is missing: install rustup (https://rustup.rs); rust-toolchain.toml names the version"
        exit 1
    }
}

setup_build() {
    need_cargo
    packages clang libbpf-dev libc6-dev pkg-config
}

setup_test() {
    setup_build
    # What vigia trace is compared with, and what it traces.
    packages shellcheck strace sqlite3
    nextest
    part kubernetes kubectl helm
    e2e/parts/build.sh init etcd
}

setup_cluster() {
    need_cargo
    packages libc6-dev iproute2 util-linux nftables iptables conntrack socat kmod busybox-static
    # Not beside that of another package, which the two would not share.
    command -v runc >/dev/null || packages runc
    part kubernetes kubectl helm
    e2e/parts/build.sh
}

setup_demo() {
    setup_build
    setup_cluster
    packages buildah busybox-static jq redis-server
}

setup_elsewhere() {
    setup_build
    # Those that the user has talk to the user's cluster.
    local program
    local -a missing=()
    for program in kubectl helm; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [[ ${#missing[@]} == 0 ]] || part kubernetes "${missing[@]}"
}

setup_bench() {
    setup_build
    packages bpftrace strace redis-server redis-tools
}

[[ $# -gt 0 ]] || set -- all
for what in "$@"; do
    case $what in
    build | test | cluster | demo | elsewhere | bench) "setup_$what" ;;
    all) for each in test cluster demo bench; do "setup_$each"; done ;;
    *)
        sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
    esac
done
