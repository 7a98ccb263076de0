#!/bin/bash
# Cuts the power under the real store on a real ext4.
#
# User-mode-linux runs the crash engine's workload on ext4 over dm-log-writes, which keeps every
# block, flush and FUA in order. Each state that a power cut may leave of them is mounted here, its
# journal replayed by the kernel, and recovered by the real start-up code.
#
#   run.sh CRASH-BINARY [STATES]      as root; packages: user-mode-linux dmsetup e2fsprogs
#                                      busybox-static python3
set -eu -o pipefail
binary=$(realpath "$1")
states=${2:-2000}
here=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d /tmp/tapgate-powercut.XXXXXX)
trap 'rm -rf "$place"' EXIT

# Room for the 256 MiB that a list must leave free, and for itself.
disk_mib=360

work() { # $1: what is left out of the store's syncs, if anything
  rm -f "$place"/disk.img "$place"/log.img "$place"/promises
  truncate -s ${disk_mib}M "$place/disk.img"
  truncate -s 2G "$place/log.img"
  sed -e "s|@PLACE@|$place|g" -e "s|@BINARY@|$binary|g" -e "s|@LEAVE_OUT@|$1|g" \
    "$here/guest.sh" >"$place/init"
  chmod +x "$place/init"
  timeout 600 linux.uml rootfstype=hostfs rootflags=/ rw mem=512M init="$place/init" \
    ubd0="$place/disk.img" ubd1="$place/log.img" con0=fd:0,fd:1 con=null quiet \
    </dev/null >"$place/console" 2>&1 || true
  grep -q '^WORKED' "$place/console" || { tail -30 "$place/console" >&2; exit 1; }
}

work ''
python3 "$here/replay.py" "$place" "$binary" "$states" none

# The engine must be able to fail: what synchronous=NORMAL leaves out loses what was promised.
work commit
python3 "$here/replay.py" "$place" "$binary" "$states" some
