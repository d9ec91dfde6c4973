# Everything a person or a pipeline does with this project. Nothing asks a question; everything may be run again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO ?= cargo
RUST_MINIMUM := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

##@ Use
.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Build, then watch a synthetic study arrive, be analysed and land in a PACS
	rm -rf target/demo
	target/release/ichor demo --keep target/demo

.PHONY: build
build: setup-build ## Build target/release/ichor and the decoder beside it
	$(CARGO) build --release --locked --package ichor

##@ Work
.PHONY: test
test: setup-test ## Run every test, against real counterparts, and each fuzz target for a moment
	ICHOR_REQUIRE_TOOLS=1 ICHOR_TEST_PYTHON="$$(scripts/setup_python.sh --path)" \
	  ICHOR_TEST_VIEWER="$$(scripts/setup_viewer.sh --path)" \
	  $(CARGO) test --workspace --release --locked
	scripts/fuzz.sh 3

.PHONY: fuzz
fuzz: setup-build ## Run each fuzz target for FUZZ_SECONDS (300) seconds
	scripts/fuzz.sh $${FUZZ_SECONDS:-300} $${FUZZ_TARGETS:-}

.PHONY: lint
lint: fmt-check clippy ## Check formatting and clippy, as CI does

.PHONY: fmt-check
fmt-check: check-rust
	$(CARGO) fmt --all --check

.PHONY: clippy
clippy: setup-build
	$(CARGO) clippy --workspace --all-targets --release --locked -- -D warnings

.PHONY: doc
doc: setup-build ## Build the API documentation, broken links being errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

.PHONY: deny
deny: check-rust ## Check licences, banned crates and advisories (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny --locked check

.PHONY: bench
bench: build setup-test ## Measure, and write the figures of whole processes into docs/performance.md
	$(CARGO) bench --workspace --locked --benches | tee target/bench.txt
	python3 scripts/bench.py --divan target/bench.txt --write docs/performance.md

# Which dicom-storescp stands for dicom-rs.
DICOM_STORESCP := 0.10.1

.PHONY: bench-receive
bench-receive: build setup-test ## Measure the receiver beside storescp, dicom-storescp and Orthanc; takes about 6 minutes
	cache="$${XDG_CACHE_HOME:-$$HOME/.cache}/ichor/dicom-storescp-$(DICOM_STORESCP)"; \
	$(CARGO) install --quiet --locked --version $(DICOM_STORESCP) --root "$$cache" dicom-storescp || true; \
	test -x "$$cache/bin/dicom-storescp" && export ICHOR_DICOM_STORESCP="$$cache/bin/dicom-storescp"; \
	python3 scripts/bench_receive.py --write docs/performance.md

.PHONY: bench-model
bench-model: setup-build ## Measure the model beside the same network in Python (5 GB of packages); takes about 10 minutes
	scripts/setup_model_python.sh
	$(CARGO) build --release --locked --package ichor-model --example model_speed
	"$$(scripts/setup_model_python.sh --path)" scripts/bench_model.py --write docs/performance.md

.PHONY: chaos
chaos: setup-test ## Kill the daemon a hundred times while eight senders push 2,000 slices and more
	ICHOR_CHAOS_KILLS=$${ICHOR_CHAOS_KILLS:-100} ICHOR_CHAOS_SLICES=2000 ICHOR_REQUIRE_TOOLS=1 \
	  ICHOR_TEST_PYTHON="$$(scripts/setup_python.sh --path)" \
	  $(CARGO) test --release --locked --package ichor --test e2e chaos:: -- --nocapture

.PHONY: chaos-delivery
chaos-delivery: setup-test ## Kill the daemon or its PACS fifty times while results are on their way
	ICHOR_DELIVERY_KILLS=$${ICHOR_DELIVERY_KILLS:-50} ICHOR_REQUIRE_TOOLS=1 \
	  ICHOR_TEST_PYTHON="$$(scripts/setup_python.sh --path)" \
	  $(CARGO) test --release --locked --package ichor --test e2e kills:: -- --nocapture

.PHONY: outage
outage: setup-test ## Take a PACS away for OUTAGE_SECONDS (600) with OUTAGE_STUDIES (200) queued for it
	OUTAGE_SECONDS=$${OUTAGE_SECONDS:-600} OUTAGE_STUDIES=$${OUTAGE_STUDIES:-200} ICHOR_REQUIRE_TOOLS=1 \
	  ICHOR_TEST_PYTHON="$$(scripts/setup_python.sh --path)" \
	  $(CARGO) test --release --locked --package ichor --test e2e outage:: -- --nocapture

.PHONY: million
million: check-rust ## Ask a job log of a million studies every question, each to be answered in 50 ms (some GB of disk)
	$(CARGO) test --release --locked --package ichor-store --lib a_million -- --ignored --nocapture

.PHONY: alert-latency
alert-latency: setup-test ## Measure how long alerts and results take to each kind of channel, over LATENCY_STUDIES (20)
	LATENCY_STUDIES=$${LATENCY_STUDIES:-20} ICHOR_REQUIRE_TOOLS=1 \
	  ICHOR_TEST_PYTHON="$$(scripts/setup_python.sh --path)" \
	  $(CARGO) test --release --locked --package ichor --test e2e alert_latency:: -- --nocapture

##@ Set-up (done by the targets above)
.PHONY: setup
setup: setup-build setup-test ## Everything below

.PHONY: setup-build
setup-build: check-rust ## Compilers and libtorch, into the cache and .libtorch
	scripts/setup_apt.sh build
	python3 scripts/setup_libtorch.py

# Behind setup-build, so that `make -j` runs one apt-get at a time.
.PHONY: setup-test
setup-test: setup-build ## DCMTK, Orthanc, dicom3tools, Chromium, and the tests' Python environment and viewer
	scripts/setup_apt.sh test
	scripts/setup_python.sh
	scripts/setup_viewer.sh

.PHONY: check-rust
check-rust:
	@found="$$($(CARGO) --version 2>/dev/null | cut -d' ' -f2)" || true; \
	if [ -z "$$found" ]; then \
	  echo "cargo is missing: install Rust $(RUST_MINIMUM) or later (rustup toolchain install stable)" >&2; exit 1; \
	elif [ "$$(printf '%s\n' "$(RUST_MINIMUM)" "$$found" | sort -V | head -n 1)" != "$(RUST_MINIMUM)" ]; then \
	  echo "Rust $$found is too old: $(RUST_MINIMUM) or later is needed (rustup update stable)" >&2; exit 1; \
	fi
