# Boots Debian in systemd-nspawn: source this file. Needs root; no KVM, no machined, no host systemd.

PACKAGES=systemd,systemd-sysv,dbus,polkitd,pcscd,adduser,vsmartcard-vpcd,python3,procps,udev,kmod,mosquitto,mosquitto-clients,jq

# want_tools COMMAND=PACKAGE...: installs what is missing. Needs root.
want_tools() {
    local pair missing=()
    [ "$(id -u)" = 0 ] || { echo "run this as root: it makes and boots Debian roots" >&2; exit 77; }
    for pair in "$@"; do
        command -v "${pair%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing: ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# newest_package ARCH: the package that make deb made.
newest_package() {
    ls -t ../../dist/tapgate_*_"$1".deb 2>/dev/null | head -1 | grep . ||
        { echo "there is no package: cross/build.sh deb $1" >&2; return 69; }
}

# root_cache: where roots are kept for the next run.
root_cache() {
    local cache=${TAPGATE_ROOTS:-${CARGO_TARGET_DIR:-../../target}/roots}
    mkdir -p "$cache"
    realpath "$cache"
}

# card IMAGE MEGABYTES MOUNT [options]: an ext4 file system of its own, on a loop device.
card() {
    truncate -s "$2M" "$1"
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$1"
    mkdir -p "$3"
    mount -o "loop${4:+,$4}" "$1" "$3"
}

# make_root SUITE FOLDER: a fresh Debian, kept for the next run.
make_root() {
    [ -e "$2/.complete" ] && return
    rm -rf "$2"
    echo "making a root of $1 (once)"
    mmdebstrap --quiet --variant=minbase --include=$PACKAGES "$1" "$2" "${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | head -n 1)}"
    touch "$2/.complete"
}

# boot FOLDER NAME [nspawn options]: boots and waits until systemd settled. Sets $leader.
boot() {
    local root=$1 name=$2 hierarchy i
    leader=
    shift 2
    # --keep-unit puts the container below the caller's own cgroup: one of its own for each.
    for hierarchy in systemd unified; do
        [ -d /sys/fs/cgroup/$hierarchy ] && mkdir -p "/sys/fs/cgroup/$hierarchy/$name"
    done
    setsid bash -c 'name=$1; shift
        for h in systemd unified; do
            [ -d /sys/fs/cgroup/$h ] && echo $$ > /sys/fs/cgroup/$h/$name/cgroup.procs
        done
        exec "$@"' - "$name" \
        systemd-nspawn -q -D "$root" -M "$name" -b --register=no --keep-unit --private-network \
        --console=pipe "$@" </dev/null >>"$root.console" 2>&1 &
    nspawn=$!
    for i in $(seq 300); do
        leader=$(pgrep -P "$nspawn" | head -1 || true)
        if [ -n "$leader" ] && inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; then
            echo "  booted in $i x 0.1 s"
            return
        fi
        kill -0 $nspawn 2>/dev/null || break
        sleep 0.1
    done
    tail -20 "$root.console"
    echo "$name did not boot" >&2
    return 1
}

# inside COMMAND...: runs it in the booted container.
inside() {
    nsenter -t "$leader" -a -W / env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 "$@"
}

power_off() {
    inside systemctl poweroff --no-wall >/dev/null 2>&1 || true
    wait "$nspawn" || true
    nspawn=
}

# For a trap: nothing of a failed run stays behind.
end_container() {
    [ -z "${nspawn:-}" ] || kill -KILL "${leader:-$nspawn}" 2>/dev/null || true
}
