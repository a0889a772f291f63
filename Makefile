# Thin targets; what each one needs from the system is in scripts/need.
CARGO ?= cargo
PREFIX ?= /usr
.DEFAULT_GOAL = help

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## update a device made of files over HTTP, then roll back a bad update
	scripts/need demo
	scripts/demo

.PHONY: test
test: ## run every test that runs on one machine
	scripts/need test
	scripts/test

.PHONY: soak
soak: ## cut the power three times in a row at random, until it is stopped
	$(CARGO) test --locked --package otad --test sim random::soak -- --ignored --nocapture

# Scenarios of the emulated board: all core ones, or those that are named in SCENARIO.
SCENARIO ?= --core
BOARD = $(CARGO) run --locked --quiet --package otad-board --

.PHONY: qemu
qemu: ## the same on an emulated ARM64 board, core scenarios or SCENARIO=NAME; make qemu-all, make qemu-soak
	scripts/need-board
	$(BOARD) run $(SCENARIO)

.PHONY: qemu-all qemu-smoke qemu-soak
qemu-all: SCENARIO = --all
qemu-smoke: SCENARIO = --smoke
qemu-all qemu-smoke: qemu

qemu-soak:
	scripts/need-board
	$(BOARD) cuts --all

.PHONY: deb
deb: ## make Debian packages of otad and otaserver for amd64 and arm64 in target/deb
	scripts/need-board
	scripts/deb amd64
	scripts/deb arm64

# Seconds of CPU time for each target; mutations of valid bundles, a root and a channel document.
SECONDS_EACH ?= 60
MUTATIONS ?= 2000000

.PHONY: fuzz
fuzz: ## hostile bytes for every parser: SECONDS_EACH of CPU time per target [60], MUTATIONS of valid documents [2000000]
	scripts/need fuzz
	scripts/fuzz $(SECONDS_EACH) $(MUTATIONS)

.PHONY: bench
bench: ## measure beside other updaters, about an hour; BENCH='--quick --rounds 1' tries it out; make bench-fleet for the server
	scripts/need bench
	scripts/bench $(BENCH)

.PHONY: bench-fleet
bench-fleet:
	scripts/need bench-fleet
	scripts/bench-fleet $(BENCH)

.PHONY: lint
lint: ## format, clippy, documentation, dependencies, shell scripts, units
	scripts/need lint
	scripts/lint

.PHONY: man
man: ## write man pages and shell completions into target/man
	$(CARGO) run --locked --quiet --package otactl --example otactl-docs -- target/man

.PHONY: install
install: ## install target/release into $(DESTDIR), programs below $(PREFIX) [/usr]
	scripts/install "$(DESTDIR)" "$(PREFIX)"

.PHONY: clean
clean: ## remove everything that was built
	$(CARGO) clean
