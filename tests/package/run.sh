#!/bin/bash
# The package on a real, booted systemd: tests/package/run.sh [SUITE...] (bookworm and trixie unless
# named), as root. Installs the previous package, edits one file, enables the service, taps through
# pcscd, lets the watchdog bite, upgrades under a running machine, boots without a network and on a
# read-only root, removes and purges. Wants dist/*_amd64.deb (cross/build.sh deb amd64).
#
# Not enforced in a container, and so tested by make nightly-boot alone: DeviceAllow, MemoryMax.
set -euo pipefail
cd "$(dirname "$0")"
. ./container.sh

[ "$(id -u)" = 0 ] || { echo "run this as root: it boots containers" >&2; exit 77; }
for tool in systemd-nspawn mmdebstrap; do
    command -v $tool >/dev/null || { echo "apt-get install systemd-container mmdebstrap" >&2; exit 69; }
done
deb=$(ls -t ../../dist/tapgate_*_"$(dpkg --print-architecture)".deb 2>/dev/null | head -1)
[ -n "$deb" ] || { echo "there is no package: cross/build.sh deb amd64" >&2; exit 69; }
cache=${TAPGATE_ROOTS:-${CARGO_TARGET_DIR:-../../target}/roots}
mkdir -p "$cache"
cache=$(realpath "$cache")
trap end_container EXIT

# The package as it was before: the same files under a lower version.
previous() { # DEB OUT
    local folder
    folder=$(mktemp -d)
    dpkg-deb -R "$1" "$folder"
    sed -i 's/^Version: .*/Version: 0.0.9-1/' "$folder/DEBIAN/control"
    dpkg-deb --root-owner-group -Zgzip -z1 -b "$folder" "$2" >/dev/null
    rm -rf "$folder"
}

# part NAME [nspawn options]: one boot and what is checked in it.
part() {
    local part=$1
    shift
    echo "$suite: $part"
    boot "$root" "tapgate-$suite-$$" "$@"
    inside bash /opt/rig/guest.sh "$part"
    power_off
}

[ $# -gt 0 ] || set -- bookworm trixie
for suite in "$@"; do
    make_root "$suite" "$cache/$suite"
    root=$cache/run-$suite
    rm -rf "$root" "$root.data" "$root.console"
    cp -a --reflink=auto "$cache/$suite" "$root"
    mkdir -p "$root/opt/rig"
    cp guest.sh site.py config.toml "$root/opt/rig/"
    cp "$deb" "$root/opt/rig/tapgate.deb"
    previous "$deb" "$root/opt/rig/previous.deb"
    part install
    part offline
    # The ledger's own partition.
    mv "$root/var/lib/tapgate" "$root.data"
    mkdir "$root/var/lib/tapgate"
    part readonly --read-only --bind="$root.data:/var/lib/tapgate" --tmpfs=/var/tmp --tmpfs=/var/log
    rmdir "$root/var/lib/tapgate"
    mv "$root.data" "$root/var/lib/tapgate"
    part remove
    rm -rf "$root"
    echo "$suite: passed"
done
