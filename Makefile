# What README tells people to type. `make run` and `make test` install what they need, build, and leave nothing behind.
TARGET  := $(shell uname -m)-unknown-linux-musl
QUICK   := target/$(TARGET)/quick/wsbox
RELEASE := target/$(TARGET)/release/wsbox
DEMO    := target/demo
PREFIX  := /usr/local
PACKAGES := busybox-static procps
TEST_PACKAGES := $(PACKAGES) runc uidmap libcap2-bin keyutils musl-tools gcc docker.io containerd podman containernetworking-plugins tini iptables iproute2 docker-compose prometheus systemd skopeo umoci docker-registry openssl mmdebstrap zstd
# The guest's host side, and what is in its image.
GUEST_PACKAGES := user-mode-linux mmdebstrap e2fsprogs cpio util-linux gcc libc6-dev jq
GUEST_IMAGE := systemd systemd-sysv dbus dbus-user-session libpam-systemd udev kmod linux-image-cloud-amd64 uidmap jq libcap2-bin keyutils \
	docker.io containerd podman runc crun containernetworking-plugins tini iptables iproute2 docker-compose busybox-static procps bsdutils criu tar
BENCH_PACKAGES := $(TEST_PACKAGES) crun strace
SUDO    := $(shell [ $$(id -u) = 0 ] || echo sudo)
CARGO   := cargo

.PHONY: run test guest test-guest test-guest-qemu bench checks lint install clean build toolchain packages test-packages bench-packages

## run: install what is missing, build, make a bundle, run it in all eight layers, show what the kernel has in force
run: packages build $(DEMO)/config.json
	@$(SUDO) sh integration/demo.sh $(QUICK) $(DEMO)

## test: everything, against the real kernel, as root
test: test-packages toolchain
	$(CARGO) build --profile quick --target $(TARGET) --workspace --bins
	$(CARGO) test --profile quick --target $(TARGET) --workspace --no-fail-fast

## guest: the image of a machine with pure cgroup v2, systemd and Docker, from Debian packages
guest:
	@sh integration/packages.sh "$(SUDO)" $(GUEST_PACKAGES)
	$(SUDO) integration/guest/image.sh $(GUEST_IMAGE)

## test-guest: the suites of integration/guest/suites in it, in two guests at once
test-guest: guest toolchain
	@TARGET=$(TARGET) integration/guest/test.sh uml $(GUEST_IMAGE)

## test-guest-qemu: what user-mode Linux lacks, on an emulated machine with two CPUs
test-guest-qemu: guest toolchain
	@TARGET=$(TARGET) integration/guest/test.sh qemu $(GUEST_IMAGE)

## bench: wsbox beside crun, runc and the floor
bench: bench-packages toolchain
	$(CARGO) build --release --target $(TARGET) -p wsbox
	@# As `make install` leaves it, and dpkg the others: a file that a linker wrote piecemeal lies in small pieces in the page cache.
	install -D -m 0755 $(RELEASE) target/bench/wsbox
	$(CARGO) build --profile quick --target $(TARGET) -p wsbox-integration --bin probe
	install -m 0755 $(dir $(QUICK))probe target/bench/probe
	WSBOX=$(CURDIR)/target/bench/wsbox $(CARGO) bench --target $(TARGET) --profile quick -p wsbox-integration --bench runtimes -- --wsbox $(CURDIR)/target/bench/wsbox $(BENCH)

## checks: what `wsbox bundle check` says of Debian's minimal root, as a folder, saved by docker and skopeo, and from a registry
checks: build
	@sh integration/packages.sh "$(SUDO)" debootstrap docker.io docker-registry skopeo
	@$(SUDO) sh integration/check.sh $(QUICK)

## lint: formatting, clippy, no warnings
lint: toolchain
	$(CARGO) fmt --all --check
	rustfmt --check --edition 2024 runtime/init/*.rs runtime/init/*/*.rs
	$(CARGO) clippy --profile quick --target $(TARGET) --workspace --all-targets -- -D warnings

## install: the release binary
install: toolchain
	$(CARGO) build --release --target $(TARGET) -p wsbox
	$(SUDO) install -D -m 0755 $(RELEASE) $(DESTDIR)$(PREFIX)/bin/wsbox

clean:
	$(CARGO) clean

build: toolchain
	$(CARGO) build --profile quick --target $(TARGET) -p wsbox

toolchain:
	@command -v cargo >/dev/null || { echo "wsbox is built with Rust: install rustup and its stable toolchain first"; exit 1; }
	@rustup target list --installed | grep -qx $(TARGET) || rustup target add $(TARGET)

packages:
	@sh integration/packages.sh "$(SUDO)" $(PACKAGES)
test-packages:
	@sh integration/packages.sh "$(SUDO)" $(TEST_PACKAGES)
bench-packages:
	@sh integration/packages.sh "$(SUDO)" $(BENCH_PACKAGES)

# A busybox root file system and the config that `wsbox spec` writes.
$(DEMO)/config.json: | build
	@rm -rf $(DEMO) && mkdir -p $(DEMO)/rootfs/bin
	@cp /bin/busybox $(DEMO)/rootfs/bin/ && for name in $$(/bin/busybox --list | grep -vx busybox); do ln -sf busybox $(DEMO)/rootfs/bin/$$name; done
	@$(QUICK) spec --bundle $(DEMO)
