# `make` lists the targets. Each can be run any number of times, also after a run
# that was killed half way.

GO ?= go
# sudo often forgets where Go is.
export PATH := $(PATH):/usr/local/go/bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILD_FLAGS = -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'

# Run by `go run`, so that they are neither installed nor in go.mod.
GOLANGCI_LINT = $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.2
GOTESTSUM = $(GO) run gotest.tools/gotestsum@v1.13.0

# Packages one after the other: they share the kernel and the Docker Engine.
TEST_FLAGS = -count=1 -p 1 -timeout 40m

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help deps engine go build install generate check lint generated test test-faults test-kernel test-kernels test-long fuzz bench demo clean-lab clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: deps build ## three nodes on this machine, with the example running on them
	examples/blog/demo.sh

test: deps build ## all tests, with real containers and kernel programs (root)
	@if $(GOTESTSUM) --version >/dev/null 2>&1; then \
		$(GOTESTSUM) --format pkgname -- $(TEST_FLAGS) ./...; \
	else \
		$(GO) test $(TEST_FLAGS) ./...; \
	fi

check: go generated lint ## format, vet, lint, dependency rule, generated code
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted (run gofmt -w):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) test -count=1 ./tests/deps

FUZZTIME ?= 30s
FAULTS ?= 30m
test-faults: deps ## for FAULTS (30m): managers killed, stopped, cut off, their disks full and hung (root)
	ORCH_FAULTS=$(FAULTS) $(GO) test ./tests/faults -count=1 -timeout 24h -v

ROUNDS ?= 20
REQUESTS ?= 1000000
TRIALS ?= 200
KILLS ?= 50
test-long: deps ## ROUNDS (20) of changes under REQUESTS (1000000) that may not fail, KILLS (50) of all daemons, TRIALS (200) of singletons (root)
	ORCH_ROUNDS=$(ROUNDS) ORCH_REQUESTS=$(REQUESTS) ORCH_KILLS=$(KILLS) ORCH_SINGLETON_TRIALS=$(TRIALS) \
		$(GO) test ./tests/e2e -run '^(TestLossless|TestCrashes|TestSingletons)$$' -count=1 -timeout 24h -v

KERNELS ?= bullseye,bookworm,trixie,sid
test-kernels: go ## the data plane on the kernels of the Debian releases KERNELS, in emulated machines
	packaging/deps.sh kernels
	$(GO) run ./tests/kernels -suites $(KERNELS)

test-kernel: go ## some of that on the oldest kernel alone
	packaging/deps.sh kernels
	$(GO) run ./tests/kernels -suites bullseye -short

fuzz: go ## every fuzz target, each for FUZZTIME (30s)
	@grep -rlE '^func Fuzz' --include=*_test.go . | while read -r file; do \
		sed -nE 's/^func (Fuzz[A-Za-z0-9]*)\(.*/\1/p' "$$file" | while read -r target; do \
			echo "$$(dirname "$$file") $$target"; \
			$(GO) test "$$(dirname "$$file")" -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s </dev/null || exit 1; \
		done || exit 1; \
	done

bench: go build engine ## what a request costs beside other ways to balance it; data path; planners; control plane; deploys and healing (root)
	packaging/deps.sh bench
	$(GO) run ./tests/bench/planner
	$(GO) run ./tests/bench/control
	$(GO) run ./tests/bench/orchestration
	$(GO) run ./tests/bench/datapath
	$(GO) run ./tests/bench

build: go ## bin/orch, one static program
	CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o bin/orch ./cmd/orch

install: build ## bin/orch and its systemd unit on this machine (root)
	packaging/install.sh bin/orch

generate: go ## regenerate the eBPF programs and their bindings
	packaging/deps.sh dev
	$(GO) generate ./bpf ./tests/bench/least

deps: ## install what is missing, start the Docker Engine (root)
	packaging/deps.sh test

engine: ## only what a node needs: the Docker Engine, running (root)
	packaging/deps.sh engine

clean-lab: build ## remove every lab and all it made
	bin/orch lab down --all

clean: ## remove what was built
	rm -rf bin

lint:
	$(GOLANGCI_LINT) run ./...

generated:
	tests/deps/generated.sh

go:
	@command -v $(GO) >/dev/null || { echo "orch is built with Go 1.26 or newer, which is not in PATH: https://go.dev/dl/" >&2; exit 1; }
