#!/bin/bash
# What a site writes to its card, counted by the block layer: tests/package/writes.sh, as root, about
# 20 minutes. The package on a booted Debian 12 whose ledger and journal lie on ext4 file systems of
# their own (loop devices). Wants dist/*_amd64.deb (cross/build.sh deb amd64).
#
# IDLE_S: how long idleness is watched; SESSIONS: how many are counted, after as many; MOUNTS: what is compared.
set -euo pipefail
cd "$(dirname "$0")"
. ./container.sh
IDLE_S=${IDLE_S:-1260}
SESSIONS=${SESSIONS:-10}
MOUNTS=${MOUNTS:-noatime relatime noatime,commit=60 noatime,data=journal}

want_tools systemd-nspawn=systemd-container mmdebstrap=mmdebstrap
deb=$(newest_package "$(dpkg --print-architecture)")
cache=$(root_cache)
root=$cache/run-writes
trap tidy_up EXIT

tidy_up() {
    local card
    end_container
    for card in "$root.ledger" "$root.journal"; do
        if mountpoint -q "$card"; then umount "$card"; fi
    done
}

# counted CARD: bytes written, writes, flushes so far.
counted() {
    local device
    device=$(basename "$(findmnt -no SOURCE "$1")")
    sync -f "$1"
    awk '{print $7 * 512, $5, $16}' "/sys/block/$device/stat"
}

# figure WHAT COMMAND...: what was written to both cards meanwhile.
figure() {
    local what=$1 card then=()
    shift
    for card in ledger journal; do then+=("$(counted "$root.$card")"); done
    "$@"
    for card in ledger journal; do
        echo "$mount: $what: $card: $(counted "$root.$card") ${then[0]}" |
            awk '{n = NF; print "  " substr($0, 1, match($0, /[0-9]+ [0-9]+ [0-9]+ [0-9]+ [0-9]+ [0-9]+$/) - 1) \
                $(n-5) - $(n-2) " bytes, " $(n-4) - $(n-1) " writes, " $(n-3) - $n " flushes"}'
        then=("${then[@]:1}")
    done
}

guest() { inside bash /opt/rig/guest.sh "$@"; }

make_root bookworm "$cache/bookworm"
for mount in $MOUNTS; do
    rm -rf "$root" "$root".*
    cp -a --reflink=auto "$cache/bookworm" "$root"
    mkdir -p "$root/opt/rig" "$root/var/log/journal"
    cp guest.sh site.py config.toml "$root/opt/rig/"
    cp "$deb" "$root/opt/rig/tapgate.deb"
    card "$root.ledger.img" 1024 "$root.ledger" "$mount"
    card "$root.journal.img" 1024 "$root.journal" "$mount"
    boot "$root" "tapgate-writes-$$" --bind="$root.ledger:/var/lib/tapgate" --bind="$root.journal:/var/log/journal"
    guest site
    figure "the first session" guest sessions 1
    # Until the write-ahead log has its size and is written over and over.
    guest sessions "$SESSIONS"
    figure "$SESSIONS sessions" guest sessions "$SESSIONS"
    if [ "$mount" = "${MOUNTS%% *}" ]; then figure "idle for $IDLE_S s" sleep "$IDLE_S"; fi
    power_off
    tidy_up
done
rm -rf "$root" "$root".*
