#!/bin/bash
# For cross/build.sh: what a 32-bit build needs, unpacked into a folder of its own. Debian 12 has no armhf
# std of its compiler's version, Debian 13 has: the two come from one commit, else rustc stops (E0514).
# Nothing is installed but the linker, and foreign arch armhf is not needed.
set -euo pipefail
root=${1:?the folder}
# The one that this machine uses.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | head -n 1)}

[ ! -e "$root/.complete" ] || exit 0
rm -rf "$root"
mkdir -p "$root"/apt/{lists,cache/archives}/partial "$root/apt/debs"
printf "deb $mirror %s main\n" bookworm trixie > "$root/apt/sources.list"

# apt as it is set up here, with lists and files of its own.
private_apt() {
    apt-get -q -o Dir::State::Lists="$root/apt/lists" -o Dir::State::status=/dev/null \
        -o Dir::Cache="$root/apt/cache" -o Dir::Etc::SourceList="$root/apt/sources.list" \
        -o Dir::Etc::SourceParts=- -o APT::Architecture=armhf -o APT::Architectures=armhf \
        -o APT::Default-Release=bookworm -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}
private_apt update
(cd "$root/apt/debs" && private_apt download libstd-rust-web-dev/trixie \
    libc6 libc6-dev linux-libc-dev libgcc-s1 libgcc-12-dev libcrypt1 libcrypt-dev \
    libpcsclite1 libpcsclite-dev libsystemd0 libsystemd-dev \
    libcap2 libgcrypt20 libgpg-error0 liblzma5 libzstd1 liblz4-1)
for package in "$root"/apt/debs/*.deb; do dpkg-deb -x "$package" "$root"; done
# Links to the root of a machine become links within this one.
find "$root" -type l -lname '/*' -exec sh -c 'ln -sf "$1$(readlink "$2")" "$2"' - "$root" {} \;
rm -r "$root/apt"
touch "$root/.complete"
