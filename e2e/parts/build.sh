#!/usr/bin/env bash
# Builds the parts of a real Kubernetes from their pinned Go modules, each once, into a cache folder.
#
#   build.sh [part...]        build what is missing (default: all that a cluster needs); progress on stderr
#   build.sh --bin part...    the same, then print each part's folder of programs, one a line
#
# Each part is a module of its own where dependencies clash; Kubernetes, Helm and CoreDNS share one, so that what
# they have in common is compiled once. A part's folder is named by the hash of all that goes into it, so that a
# second run builds nothing and two checkouts can share the cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

cache="${VIGIA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vigia}"
default=(init etcd kubernetes containerd cni)
short_of_disk_gib=20

say() { printf 'parts: %s\n' "$*" >&2; }

case $(realpath -m "$cache")/ in
/tmp/* | /run/*)
    say "the cache $cache lies below /tmp or /run, which a cluster's nodes have of their own: set VIGIA_CACHE to another folder"
    exit 1
    ;;
esac

version_of() { awk -v m="$1" '$1 == m || $2 == m { print ($1 == m) ? $2 : $3; exit }' "$2/go.mod"; }

# The compiler's flags for a part. Every line here is part of the hash.
compile() {
    local part=$1 out=$2 kubernetes minor
    local -a flags=(-mod=readonly -trimpath -buildvcs=false)
    export CGO_ENABLED=0 GOFLAGS='' GOWORK=off
    case $part in
    init)
        cc -static -Os -Wall -Wextra -s -o "$out/init" init.c
        return
        ;;
    kubernetes)
        # kubectl and Helm ask the server for its version and want to be told one.
        kubernetes=$(version_of k8s.io/kubernetes .)
        minor=${kubernetes#v1.}
        local at=k8s.io/component-base/version
        go build "${flags[@]}" -ldflags "-s -w -X $at.gitVersion=$kubernetes -X $at.gitMajor=1 -X $at.gitMinor=${minor%%.*}" \
            -o "$out/" tool ./coredns
        ;;
    etcd) go build "${flags[@]}" -ldflags '-s -w' -o "$out/etcd" go.etcd.io/etcd/server/v3 ;;
    *) go build "${flags[@]}" -ldflags '-s -w' -o "$out/" tool ;;
    esac
}

folder_of() {
    local hash
    hash=$({
        cat "$1"/go.mod "$1"/go.sum "$1"/*.c "$1"/*/*.go 2>/dev/null || true
        declare -f compile
    } | sha256sum)
    printf '%s/parts/%s-%s' "$cache" "$1" "${hash:0:16}"
}

free_gib() { df --output=avail -BG "$cache" | awk 'NR == 2 { print $1 + 0 }'; }

build() {
    local part=$1 folder=$2 started work
    mkdir -p "$cache/parts"
    exec {lock}>"$folder.lock"
    flock "$lock"
    if [[ ! -d $folder/bin ]]; then
        if [[ $part != init ]] && ! command -v go >/dev/null; then
            say "Go is missing: install Go $(awk '/^go /{print $2}' "$part/go.mod") or later, then run this again"
            exit 1
        fi
        started=$SECONDS
        say "building $part (once; later runs take it from $folder)"
        work=$(mktemp -d "$cache/parts/.$part.XXXXXX")
        mkdir "$work/bin"
        # A build cache of our own, because the disk may be too small to keep it.
        if ! (cd "$part" && GOCACHE="${VIGIA_GOCACHE:-$cache/go-build}" compile "$part" "$work/bin") >"$work/log" 2>&1; then
            say "$part did not build:"
            tail -n 30 "$work/log" >&2
            # Go names the module and its version; what can be done is not in its words.
            if grep -qE 'proxy|dial tcp|: (403|404|410) ' "$work/log"; then
                say "a module of $part/go.mod cannot be fetched from GOPROXY=$(go env GOPROXY): set GOPROXY to a proxy" \
                    "that has it, or name a version that this one has in e2e/parts/$part/go.mod, run go mod tidy there, and try again"
            fi
            rm -rf "$work"
            exit 1
        fi
        rm -rf "$folder" "$work/log"
        mv "$work" "$folder"
        say "built $part in $((SECONDS - started)) s"
        if [[ -z ${VIGIA_GOCACHE:-} && $(free_gib) -lt $short_of_disk_gib ]]; then
            say "less than $short_of_disk_gib GiB of disk left: deleting the Go build cache in $cache"
            rm -rf "$cache/go-build"
        fi
    fi
    exec {lock}>&-
}

print=0
if [[ ${1:-} == --bin ]]; then
    print=1
    shift
fi
[[ $# -gt 0 ]] || set -- "${default[@]}"
for part in "$@"; do
    if [[ ! -d $part ]]; then
        say "no part is called '$part'; there are: $(printf '%s ' */)"
        exit 2
    fi
    folder=$(folder_of "$part")
    [[ -d $folder/bin ]] || build "$part" "$folder"
    [[ $print == 0 ]] || printf '%s/bin\n' "$folder"
done
