# Thin targets; what each one needs from the system is in scripts/need.
CARGO ?= cargo
PREFIX ?= /usr
.DEFAULT_GOAL = help

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

.PHONY: qemu
qemu: ## the same on an emulated board (not there yet)
	@echo "make qemu: the emulated ARM64 board is not there yet; test-images/README.md says what is planned" >&2; exit 1

.PHONY: bench
bench: ## measure against other updaters (not there yet)
	@echo "make bench: the benchmarks are not there yet; make demo and make test are" >&2; exit 1

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
