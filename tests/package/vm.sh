#!/bin/bash
# The arm64 package on a booted arm64 machine, emulated: real cgroups, so DeviceAllow and MemoryMax
# hold, and a real /dev/ttyUSB0. As root; takes two to four minutes; for the night, not for every commit.
# Wants dist/*_arm64.deb (cross/build.sh deb arm64), qemu-system-arm, mmdebstrap and foreign arch arm64.
#
# No arm64 program runs on this machine: the root is extracted, prepared by systemd's own --root tools
# and booted from an initramfs. dpkg's scripts are tested in containers, by run.sh.
set -euo pipefail
cd "$(dirname "$0")"
. ./container.sh
QEMU=${QEMU:-qemu-system-aarch64}
SUITE=${SUITE:-trixie}
LIMIT_S=${LIMIT_S:-900}

want_tools mmdebstrap=mmdebstrap "$QEMU=qemu-system-arm" cpio=cpio depmod=kmod \
    systemd-sysusers=systemd
deb=$(newest_package arm64)
cache=$(root_cache)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

extract_root() {
    [ -e "$cache/arm64-$SUITE/.complete" ] && return
    rm -rf "$cache/arm64-$SUITE"
    mmdebstrap --quiet --mode=root --architectures=arm64 --variant=extract --include=bash,coreutils,util-linux,grep,sed,mawk,findutils,libc-bin,base-files,base-passwd,passwd,login,init-system-helpers,systemd,systemd-sysv,dbus,polkitd,pcscd,libccid,vsmartcard-vpcd,python3,procps,udev,kmod,jq,mosquitto,mosquitto-clients,tzdata \
        "$SUITE" "$cache/arm64-$SUITE" "${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | head -n 1)}"
    touch "$cache/arm64-$SUITE/.complete"
}

fetch_kernel() {
    [ -e "$cache/kernel-arm64/boot" ] && return
    local image
    image=$(apt-cache depends linux-image-arm64:arm64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -1)
    (cd "$work" && apt-get download -q "${image%%:*}:arm64")
    dpkg-deb -x "$work"/linux-image-*.deb "$cache/kernel-arm64"
}

prepare() { # ROOT
    local root=$1 kernel=$cache/kernel-arm64 version folder
    dpkg-deb -x "$deb" "$root"
    [ -e "$root/bin/sh" ] || ln -s bash "$root/bin/sh"
    printf 'passwd: files systemd\ngroup: files systemd\nshadow: files\nhosts: files\n' > "$root/etc/nsswitch.conf"
    printf '127.0.0.1 localhost\n' > "$root/etc/hosts"
    systemd-sysusers --root="$root" 2>/dev/null
    systemd-tmpfiles --root="$root" --create tapgate.conf
    systemd-machine-id-setup --root="$root" >/dev/null 2>&1
    mkdir -p "$root/opt/rig"
    cp guest.sh site.py "$root/opt/rig/"
    cat config.toml serial.toml > "$root/opt/rig/config.toml"
    cat > "$root/etc/systemd/system/nightly.service" <<UNIT
[Unit]
# It follows the target that pulls it in, which only works without the default dependencies.
DefaultDependencies=no
After=multi-user.target
[Service]
ExecStart=/bin/bash /opt/rig/guest.sh vm
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyAMA0
ExecStopPost=/usr/bin/systemctl poweroff --no-wall
Environment=SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 LOOKS=400
Environment=BADGES=${BADGES:-1000}
UNIT
    systemctl --root="$root" enable -q pcscd.socket
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -sf ../nightly.service "$root/etc/systemd/system/multi-user.target.wants/nightly.service"
    ln -sf usr/lib/systemd/systemd "$root/init"
    version=$(basename "$kernel"/lib/modules/*)
    for folder in drivers/usb/{core,common,host,serial,class} fs/autofs drivers/nfc net/nfc; do
        [ -e "$kernel/lib/modules/$version/kernel/$folder" ] || continue
        mkdir -p "$root/usr/lib/modules/$version/kernel/$(dirname $folder)"
        cp -a "$kernel/lib/modules/$version/kernel/$folder" "$root/usr/lib/modules/$version/kernel/$folder"
    done
    cp "$kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$root/usr/lib/modules/$version/"
    depmod -b "$root" "$version"
    rm -rf "$root"/usr/share/{doc,man,locale,info} "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
}

extract_root
fetch_kernel
cp -a --reflink=auto "$cache/arm64-$SUITE" "$work/root"
prepare "$work/root"
(cd "$work/root" && find . -print0 | cpio -0 -o -H newc --quiet) > "$work/initramfs"
echo "booting $(basename "$deb") on an emulated Cortex-A53"
timeout -k 5 "$LIMIT_S" "$QEMU" -M virt -cpu cortex-a53 -accel tcg -smp 2 -m 1536 \
    -kernel "$cache"/kernel-arm64/boot/vmlinuz-* -initrd "$work/initramfs" \
    -append "console=ttyAMA0 rdinit=/init quiet systemd.firstboot=no systemd.mask=serial-getty@ttyAMA0.service systemd.mask=systemd-binfmt.service systemd.mask=proc-sys-fs-binfmt_misc.automount" \
    -nographic -no-reboot -net none -device qemu-xhci \
    -chardev socket,id=rs485,path="$work/rs485",server=on,wait=off \
    -device usb-serial,chardev=rs485,always-plugged=on -device usb-ccid </dev/null | tee "$work/log"
grep -q '^  nightly: passed' "$work/log" || { echo "the nightly boot failed" >&2; exit 1; }
