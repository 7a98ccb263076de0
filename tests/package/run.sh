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

want_tools systemd-nspawn=systemd-container mmdebstrap=mmdebstrap
deb=$(newest_package "$(dpkg --print-architecture)")
cache=$(root_cache)
trap tidy_up EXIT

tidy_up() {
    end_container
    if [ -n "${root:-}" ] && mountpoint -q "$root.data"; then umount "$root.data"; fi
}

# The package as it was before, PREVIOUS=FILE or the same files: under a lower version.
previous() { # DEB OUT
    local folder
    folder=$(mktemp -d)
    dpkg-deb -R "${PREVIOUS:-$1}" "$folder"
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

# The ledger has a file system of its own, as on a card with a partition for it.
on_a_readonly_root() {
    card "$root.img" 1024 "$root.data" noatime,nodev,nosuid,noexec
    cp -a "$root/var/lib/tapgate/." "$root.data/"
    part readonly --read-only --bind="$root.data:/var/lib/tapgate" --tmpfs=/var/tmp --tmpfs=/var/log
    cp -a "$root.data/." "$root/var/lib/tapgate/"
    umount "$root.data"
    rm -r "$root.img" "$root.data"
}

[ $# -gt 0 ] || set -- bookworm trixie
for suite in "$@"; do
    make_root "$suite" "$cache/$suite"
    root=$cache/run-$suite
    rm -rf "$root" "$root.img" "$root.console"
    cp -a --reflink=auto "$cache/$suite" "$root"
    mkdir -p "$root/opt/rig"
    cp guest.sh site.py config.toml "$root/opt/rig/"
    cp "$deb" "$root/opt/rig/tapgate.deb"
    previous "$deb" "$root/opt/rig/previous.deb"
    for part in ${PARTS:-install offline readonly remove}; do
        if [ "$part" = readonly ]; then on_a_readonly_root; else part "$part"; fi
    done
    rm -rf "$root"
    echo "$suite: passed"
done
