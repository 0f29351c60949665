# Yunju: everything a developer types. Each target sets up what it needs and is quick when nothing changed.

SHELL := /bin/bash
export YUNJU_CACHE ?= $(HOME)/.cache/yunju
# Which image `make run` boots, and where the browser finds it.
IMAGE ?= desktop
PORT ?= 8080

.DEFAULT_GOAL := help
.PHONY: help run test test-host test-native test-pages test-api test-lab test-fuzz package test-package lint fuzz bench images build deps setup clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

run: ## Build everything, boot a desktop and print where to open it (IMAGE=desktop|card, PORT=8080)
	@ci/setup run images lab
	@$(MAKE) --no-print-directory build
	@images/build $(IMAGE)
	@ci/start --image $(IMAGE) --port $(PORT)

test: ## All tests, all three tiers
	@ci/setup
	@$(MAKE) --no-print-directory deps lint test-host test-api test-native test-pages test-fuzz test-lab

test-host: ## Tier 1: parsers, encoders, devices, store, API
	cargo build --workspace --bins --examples --locked
	cargo test --workspace --exclude yunju-vmm --locked
	cargo test -p yunju-vmm --lib --bins --locked
	cd images/probe && cargo test --lib --locked
	cd images/agent && cargo test --locked

test-api: deps ## Tier 1: schemathesis asks every address of the API what its description allows, and what it does not
	cargo build -p yunju --bins --examples --locked
	tests/api/run

test-native: ## Tier 2: the monitor with probe guests on this host's /dev/kvm
	cargo test -p yunju-vmm --test native --test prisoner --locked

test-pages: build ## Tiers 1 and 2 in a browser: the pages and the whole pipeline with the card guest
	images/build card
	cargo build -p yunju-vnc-proxy --example fake-machine --locked
	cd tests && node --test --test-concurrency=1 pages/

test-lab: build ## Tier 3: Debian desktops under real KVM in the nested lab
	images/build minimal desktop
	ci/lab build
	ci/lab-test
	cd tests && node --test --test-concurrency=1 lab/

test-fuzz: ## Each fuzz target for 20 seconds, from the kept corpus
	ci/fuzz-test

fuzz: ## Each fuzz target for FUZZ_SECONDS=120; what fails is kept in fuzz/artifacts
	fuzz/run --seconds $${FUZZ_SECONDS:-120}

package: build ## A Debian package of the release binaries, in target/package
	ci/package/build

test-package: package ## Installs it into a bare Debian, serves, upgrades and removes it (root, mmdebstrap)
	ci/package/test target/package/yunju_*.deb

lint: deps ## Formatting, clippy, shellcheck
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cd images/probe && cargo fmt --check && cargo clippy --release --locked -- -D warnings
	cd images/agent && cargo fmt --check && cargo clippy --all-targets --locked -- -D warnings
	cd fuzz && cargo fmt --check && cargo clippy --locked -- -D warnings
	shellcheck ci/package/build ci/package/test ci/package/postinst ci/package/prerm ci/package/postrm fuzz/run ci/fuzz-test ci/setup ci/lab ci/lab-test ci/start ci/serve ci/guest/build .ci/run images/build images/*/recipe images/lib/common.sh

bench: build ## Measure against named peers; ONLY=boot for one group
	@ci/setup
	images/build minimal desktop card
	tests/bench/run $(ONLY)

images: ## Build all guest images
	@ci/setup images
	images/build

build: deps ## Release binaries
	cargo build --release --workspace --locked

deps: manager/web/node_modules/.package-lock.json tests/node_modules/.package-lock.json

%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

clean: ## Remove what was built here (the cache of images and the lab stays: rm -r $$YUNJU_CACHE)
	cargo clean
	rm -rf images/{probe,agent}/target fuzz/target manager/web/node_modules tests/node_modules tests/artefacts
