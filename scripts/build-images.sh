#!/usr/bin/env bash
# Builds our static binaries and puts each into an image of its own: target/images/<part>.tar, OCI archives.
# An image whose files did not change is left alone.
#
#   scripts/build-images.sh [--unoptimised] [agent operator trainer cli demo-workload]     default: all
#
# cli is a binary only: target/images/vigia. --unoptimised takes what the tests are compiled with anyway, each binary
# beside the libraries that it links, into target/debug/images: `make test` has no time for a second build.
#
# IMAGE_REGISTRY and IMAGE_TAG name them (localhost/vigia, dev). To use them on a cluster of your own, push:
#   buildah push / skopeo copy oci-archive:target/images/agent.tar docker://registry.example.com/vigia/agent:1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

registry=${IMAGE_REGISTRY:-localhost/vigia}
tag=${IMAGE_TAG:-dev}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
triple=$(rustc -vV | awk '/^host:/ { print $2 }')
shipped=yes
if [[ ${1:-} == --unoptimised ]]; then
    shipped=''
    shift
fi
if [[ -n $shipped ]]; then
    built=$target/$triple/release
    out=$target/images
else
    built=$target/debug
    out=$built/images
fi

say() { printf 'images: %s\n' "$*" >&2; }

# buildah with storage of its own below the target folder, and no daemon, mounts or network.
build() {
    local -a store=(--root "$out/.storage" --runroot "$out/.run" --storage-driver vfs)
    local part=$1 context=$2 name=$registry/$1:$tag
    buildah "${store[@]}" build --isolation chroot --layers=false --timestamp 0 --quiet \
        --target "$part" --tag "$name" --file Containerfile "$context" >/dev/null
    rm -f "$out/$part.new"
    buildah "${store[@]}" push --quiet "$name" "oci-archive:$out/$part.new:$name"
    mv "$out/$part.new" "$out/$part.tar"
    buildah "${store[@]}" rmi --force "$name" >/dev/null
}

# Builds an image unless it was built of the same files.
image() {
    local part=$1 context=$2 stamp
    stamp=$(cd "$context" && find . ! -type d -print0 | sort -z | xargs -0 sha256sum |
        cat - "$OLDPWD/Containerfile" <(echo "$registry:$tag") | sha256sum)
    if [[ -s $out/$part.tar && $(cat "$out/$part.stamp" 2>/dev/null) == "$stamp" ]]; then
        return
    fi
    build "$part" "$context"
    echo "$stamp" >"$out/$part.stamp"
    say "built $registry/$part:$tag ($(du -h "$out/$part.tar" | cut -f1)) in $out/$part.tar"
}

# All of them at once, also where one is wanted: cargo would build what they share anew for another choice.
binaries() {
    if [[ -z $shipped ]]; then
        cargo build --quiet --workspace --bins --tests
        return
    fi
    say 'compiling the binaries (release, static)'
    RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
        cargo build --release --quiet --target "$triple" --target-dir "$target" --bins \
        --package vigia-agent --package vigia-operator --package vigia-trainer --package vigia-cli
}

# Copies what a program links, if anything, to where it looks for it below a root folder.
libraries() {
    local program=$1 root=$2 library
    while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        [[ -e $root$library ]] || cp -L "$library" "$root$library"
    done < <(ldd "$program" 2>/dev/null | grep -o '/[^ ]*')
}

# redis, its load generator, and a shell with nc and wget, with the libraries that they link.
workload() {
    local context=$1 program applet
    rm -rf "$context"
    mkdir -p "$context/rootfs/bin" "$context/rootfs/etc" "$context/rootfs/tmp" "$context/rootfs/data"
    for program in redis-server redis-cli redis-benchmark busybox; do
        command -v "$program" >/dev/null || {
            say "$program is missing: scripts/setup.sh demo installs it"
            exit 1
        }
        cp -L "$(command -v "$program")" "$context/rootfs/bin/$program"
        libraries "$context/rootfs/bin/$program" "$context/rootfs"
    done
    for applet in sh cat ls nc wget sleep seq id ps grep head tail find dd env true kill date mkdir rm; do
        ln -s busybox "$context/rootfs/bin/$applet"
    done
    # What an attacker would look for; nobody's password.
    printf 'root:x:0:0:root:/:/bin/sh\nredis:x:999:999::/data:/bin/sh\n' >"$context/rootfs/etc/passwd"
    printf 'root:!:20000:0:99999:7:::\nredis:!:20000:0:99999:7:::\n' >"$context/rootfs/etc/shadow"
    printf 'root:x:0:\nredis:x:999:\n' >"$context/rootfs/etc/group"
    chmod 1777 "$context/rootfs/tmp" "$context/rootfs/data"
}

mkdir -p "$out"
[[ $# -gt 0 ]] || set -- agent operator trainer cli demo-workload
ours=0
for part in "$@"; do
    case $part in
    agent | operator | trainer | cli) ours=1 ;;
    demo-workload) ;;
    *)
        sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
    esac
done
[[ $ours == 0 ]] || binaries
for part in "$@"; do
    if [[ $part == cli ]]; then
        ln -f "$built/vigia" "$out/vigia"
        continue
    fi
    context=$out/.context/$part
    if [[ $part == demo-workload ]]; then
        workload "$context"
    else
        rm -rf "$context"
        mkdir -p "$context"
        strip -o "$context/vigia-$part" "$built/vigia-$part"
        libraries "$context/vigia-$part" "$context"
    fi
    image "$part" "$context"
done
