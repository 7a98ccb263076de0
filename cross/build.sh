#!/bin/bash
# Builds tapgate for sites on a plain Debian 12 machine: binaries and packages, the same bytes each time.
#
#     cross/build.sh setup               installs what is missing, from Debian's archive
#     cross/build.sh build [ARCH...]     release binaries (arm64 and amd64 unless named; armhf by name)
#     cross/build.sh deb   [ARCH...]     binaries and packages, into dist/
#     cross/build.sh test  [OPTION...]   tests of core, store and protocol as arm64, emulated
#     cross/build.sh sbom                what is linked in, as CycloneDX, into dist/
#     cross/build.sh release             all of it: dist/ is what is published
#     cross/build.sh reproducible [ARCH...]  builds again in another folder and compares with dist/
#
# The compiler is rustup's where it has the std of the target, else Debian's rustc-web with Debian's
# std packages: both must be of one version with each other, which those packages are. For armhf it is
# always Debian's, with what cross/armhf.sh unpacks.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DEB=3.8.0
CYCLONEDX=0.5.7
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
armhf_root=$target/armhf-root
export CARGO_TARGET_DIR=$target
export PATH=$target/tools/bin:$PATH
# What the build remembers of time is the last commit's; unpacked from an archive, the changelog's.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH

triple() {
    case $1 in
        arm64) echo aarch64-unknown-linux-gnu ;;
        amd64) echo x86_64-unknown-linux-gnu ;;
        armhf) echo armv7-unknown-linux-gnueabihf ;;
        *) echo "cross/build.sh: $1 is not built here (arm64, amd64 and armhf are)" >&2; exit 64 ;;
    esac
}

has_std() { # COMPILER ARCH
    local root
    root=$("$1" --print sysroot 2>/dev/null) || return 1
    [ -n "$(find "$root/lib/rustlib/$(triple "$2")/lib" -name 'libstd-*.rlib' 2>/dev/null)" ]
}

setup() { # ARCH...
    local sudo="" std=() linker=()
    [ "$(id -u)" = 0 ] || sudo=sudo
    dpkg --print-foreign-architectures | grep -qx arm64 || $sudo dpkg --add-architecture arm64
    if wanted armhf "$@"; then linker=(gcc-arm-linux-gnueabihf); fi
    if wanted armhf "$@" || ! has_std rustc arm64; then
        std=(rustc-web libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64)
    fi
    command -v cargo >/dev/null || std+=(cargo-web)
    $sudo apt-get update -q
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        gcc libc6-dev gcc-aarch64-linux-gnu pkg-config qemu-user-static dpkg-dev lintian \
        libpcsclite-dev libsystemd-dev libc6-dev:arm64 libpcsclite-dev:arm64 libsystemd-dev:arm64 \
        "${std[@]}" "${linker[@]}"
    choose_compiler
}

wanted() { # ARCH ARCH...
    [[ " ${*:2} " == *" $1 "* ]]
}

has_tool() { [ "$("$1" --version 2>/dev/null | grep -o '[0-9.]*$')" = "$2" ]; }

# With the compiler of this machine's own std, whatever the site's binary is built with.
install_tool() { cargo install "$1" --version "$2" --locked --root "$target/tools"; }

choose_compiler() {
    has_std rustc arm64 && return
    has_std /usr/bin/rustc arm64 || { echo "no std for arm64: run cross/build.sh setup" >&2; exit 69; }
    export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
}

# Where the sources lie must not show in the binary. And no tables for unwinding: a panic says where it
# was and ends the process, systemd starts the next one.
set_flags() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo}
    export RUSTFLAGS="-Cforce-unwind-tables=no --remap-path-prefix=$PWD=/tapgate --remap-path-prefix=$target=/target --remap-path-prefix=$cargo_home=/cargo"
    export CFLAGS="-fno-asynchronous-unwind-tables -ffile-prefix-map=$PWD=/tapgate -ffile-prefix-map=$target=/target -ffile-prefix-map=$cargo_home=/cargo"
}

build() {
    local arch
    choose_compiler
    set_flags
    for arch in "$@"; do
        (
            if [ "$arch" = armhf ]; then in_armhf_root; fi
            cargo --config cross/site.toml build --release --locked --no-default-features \
                --target "$(triple "$arch")"
        )
    done
}

# Compiler, linker and pkg-config look into the folder with the 32-bit packages.
in_armhf_root() {
    local name=armv7_unknown_linux_gnueabihf
    cross/armhf.sh "$armhf_root"
    export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
    export RUSTFLAGS="$RUSTFLAGS --sysroot=$armhf_root/usr -Clink-arg=--sysroot=$armhf_root"
    export CFLAGS_$name="$CFLAGS --sysroot=$armhf_root" PKG_CONFIG_SYSROOT_DIR_$name="$armhf_root" \
        PKG_CONFIG_LIBDIR_$name="$armhf_root/usr/lib/arm-linux-gnueabihf/pkgconfig"
}

# What the package holds beside the binary is made by the binary.
stage() { # ARCH
    local stage=dist/stage run=()
    case $1 in
        "$(dpkg --print-architecture)") ;;
        armhf) run=(qemu-arm-static -L "$armhf_root") ;;
        *) run=(qemu-aarch64-static) ;;
    esac
    run+=("$target/$(triple "$1")/release/tapgate")
    rm -rf $stage
    mkdir -p $stage/man
    "${run[@]}" man --out $stage/man
    for shell in bash zsh fish; do "${run[@]}" completions $shell > $stage/tapgate.$shell; done
    cross/changelog.sh > $stage/changelog
    gzip -9nc $stage/changelog > $stage/changelog.gz
    find $stage -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
}

package() {
    local arch variant
    has_tool cargo-deb "$CARGO_DEB" || install_tool cargo-deb "$CARGO_DEB"
    build "$@"
    # cargo-deb runs no compiler: the binaries are there.
    for arch in "$@"; do
        fits "$arch"
        stage "$arch"
        variant=()
        [ "$arch" != armhf ] || variant=(--variant armhf)
        cargo deb --no-build --no-strip --locked --no-default-features --target "$(triple "$arch")" \
            "${variant[@]}" --output dist/
    done
    ls -l dist/*.deb
}

# What a Pi was promised: a small binary that needs libpcsclite, libsystemd and libc's own.
fits() { # ARCH
    local binary libraries limit=$((6 << 20))
    binary=$target/$(triple "$1")/release/tapgate
    libraries=$(readelf -d "$binary" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' |
        grep -vE '^(libpcsclite|libsystemd|libgcc_s|libc|libm|ld-linux[a-z0-9-]*)\.so' || true)
    [ -z "$libraries" ] || { echo "the binary needs more libraries: $libraries" >&2; exit 1; }
    [ "$1" != arm64 ] || [ "$(stat -c %s "$binary")" -lt $limit ] ||
        { echo "the binary for arm64 has outgrown $limit bytes" >&2; exit 1; }
}

# From the lock file, for the Pi, without what tests and build scripts use.
sbom() {
    mkdir -p dist
    has_tool cargo-cyclonedx "$CYCLONEDX" || install_tool cargo-cyclonedx "$CYCLONEDX"
    cargo cyclonedx --format json --no-default-features --no-build-deps --target "$(triple arm64)" \
        --override-filename tapgate.cdx
    # The same bytes each time: no serial number, no folder, the commit's time.
    sed -e '/"serialNumber":/d' -e "s|$PWD|/tapgate|g" \
        -e "s|\"timestamp\": \"[^\"]*\"|\"timestamp\": \"$(date -ud "@$SOURCE_DATE_EPOCH" +%FT%TZ)\"|" \
        tapgate.cdx.json > dist/tapgate.cdx.json
    rm tapgate.cdx.json
}

release() {
    rm -rf dist
    package arm64 amd64
    sbom
    for arch in arm64 amd64; do
        install -m 755 "$target/$(triple $arch)/release/tapgate" "dist/tapgate-$arch"
    done
    cp CHANGELOG.md dist/
    rm -rf dist/stage
    # Overrides and why: systemd/lintian/tapgate.
    lintian --fail-on error,warning dist/*.deb
    (cd dist && sha256sum -- * > SHA256SUMS)
    cat dist/SHA256SUMS
}

# The same commit elsewhere on this machine must give the same bytes: packages, binaries and SBOM.
reproducible() { # ARCH...
    local elsewhere here=$PWD arch sums built=()
    elsewhere=$(mktemp -d)
    git clone -q . "$elsewhere/some-other-folder"
    mkdir "$elsewhere/target"
    cp -r --reflink=auto "$target/tools" "$elsewhere/target/"
    cd "$elsewhere/some-other-folder"
    CARGO_TARGET_DIR=$elsewhere/target cross/build.sh deb "$@"
    CARGO_TARGET_DIR=$elsewhere/target cross/build.sh sbom
    for arch in "$@"; do
        cp "$elsewhere/target/$(triple "$arch")/release/tapgate" "dist/tapgate-$arch"
        built+=("tapgate-$arch" "$(cd dist && echo tapgate_*_"$arch".deb)")
    done
    sums=$(cd dist && sha256sum tapgate.cdx.json "${built[@]}")
    echo "$sums"
    (cd "$here/dist" && sha256sum -c - <<<"$sums")
    cd "$here"
    rm -rf "$elsewhere"
    echo "the same bytes, built twice"
}

verb=${1:-help}
[ $# -eq 0 ] || shift
[ "$verb" = test ] || [ $# -gt 0 ] || set -- arm64 amd64
case $verb in
    setup) setup "$@" ;;
    build) build "$@" ;;
    deb) package "$@" ;;
    sbom) sbom ;;
    release) release ;;
    reproducible) reproducible "$@" ;;
    test)
        choose_compiler
        # Tests take seconds even so; built as for use they would take minutes more to build.
        exec cargo --config cross/site.toml --config 'profile.dev.debug=false' \
            --config 'profile.dev.package."*".opt-level=0' test --locked --target "$(triple arm64)" --lib "$@" -- \
            core:: protocol:: io::store:: ;;
    *) sed -n 's/^#     //p' "$0"; exit 64 ;;
esac
