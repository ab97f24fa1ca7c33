# Every target is one line to read: what it does stands behind its name, and `make` lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

BIN := bin/nbd-dataplane
GO ?= go

# The tests run with all that can be told from outside switched off: no cache, and a limit on a test that hangs.
TEST_FLAGS ?= -count=1 -timeout=20m
FUZZ_SECONDS ?= 20
SOAK_MINUTES ?= 30
KILLS ?= 40
NFS_KILLS ?= 100
SIM_SEEDS ?= 100000
SIM_FIRST ?= 1
BENCH ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build ## serve an example disk on a unix socket until Ctrl-C, and print how to attach it
	@scripts/run $(BIN)

.PHONY: build
build: ## build the program into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN) ./cmd/nbd-dataplane

.PHONY: deps
deps: ## install the Debian packages that the tests need (root or sudo)
	@scripts/install-deps

.PHONY: test
test: deps vet build test-plain test-race test-check ## install what is needed, then pass all tests, three ways built

.PHONY: test-plain
test-plain: ## the tests, interop with real clients among them
	$(GO) test $(TEST_FLAGS) ./...

.PHONY: test-race
test-race: ## the tests under the race detector
	$(GO) test -race $(TEST_FLAGS) ./...

.PHONY: test-check
test-check: ## the tests with the assertions of the check build
	$(GO) test -tags check $(TEST_FLAGS) ./...

.PHONY: model
model: deps ## check the model of the drain protocol (docs/model) within larger bounds
	$(GO) test $(TEST_FLAGS) -v -run TestProtocolHolds ./docs/model -large

.PHONY: simulate
simulate: ## run SIM_SEEDS (100000) seeds of the simulation of the block layer from SIM_FIRST (1) on
	$(GO) test -count=1 -timeout=0 -v -run TestSeeds ./internal/sim -sim.seeds=$(SIM_SEEDS) -sim.first=$(SIM_FIRST)

.PHONY: simulate-nfs
simulate-nfs: ## run SIM_SEEDS (100000) seeds of the simulation of the NFS driver from SIM_FIRST (1) on
	$(GO) test -count=1 -timeout=0 -v -run 'TestSimulation$$' ./backends/nfs -nfs.seeds=$(SIM_SEEDS) -nfs.first=$(SIM_FIRST)

.PHONY: mutants
mutants: ## break the block layer and the NFS driver on purpose, and see that the simulations find each mistake
	$(GO) test $(TEST_FLAGS) -timeout=1h -v -run TestMutantsAreFound ./internal/sim -sim.mutants
	$(GO) test $(TEST_FLAGS) -timeout=1h -v -run TestSimulationFindsMutants ./backends/nfs -nfs.mutants

.PHONY: e2e
e2e: deps build ## boot virtual machines (TCG) on a disk served by us: nbd-client and QEMU's nbd: drive
	$(GO) test -tags e2e $(TEST_FLAGS) -v ./e2e

.PHONY: show-resize
show-resize: deps ## watch a guest's kernel, and a guest under QEMU, learn that their disk has become larger
	@scripts/resize-in-guest

.PHONY: bench
bench: deps build ## compare with the other servers; BENCH=--quick, or any option of internal/bench
	$(GO) run ./internal/bench --ours $(BIN) $(BENCH)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZ_SECONDS (20)
	@scripts/fuzz $(FUZZ_SECONDS)

.PHONY: soak
soak: deps ## kills, then the tests again and again in random order, race detector and assertions on, for SOAK_MINUTES (30)
	@scripts/soak $(SOAK_MINUTES) $(KILLS)

.PHONY: kills
kills: deps ## kill -9 the server under load, KILLS (40) times on each of nine kinds of qcow2 images, and look at what is left
	KILLS=$(KILLS) $(GO) test -count=1 -timeout=0 -v -run '^TestKills$$' ./interop

.PHONY: test-ganesha
test-ganesha: deps build ## the tests against nfs-ganesha, which needs root, and a TMPDIR that is not on overlayfs
	$(GO) test -tags ganesha $(TEST_FLAGS) ./backends/nfs/... ./internal/bench/harness
	$(GO) test -tags ganesha $(TEST_FLAGS) -run '^TestNFS' ./interop ./cmd/nbd-dataplane

.PHONY: nfs-kills
nfs-kills: deps ## kill -9 an NFS server below us NFS_KILLS (100) times, cut the power of another one, and look for what was flushed
	NFS_KILLS=$(NFS_KILLS) $(GO) test -tags ganesha -count=1 -timeout=0 -v -run '^TestNFS(Kills|PowerCuts)$$' ./interop

.PHONY: churn
churn: ## drain, move, filter, resize and disconnect a disk 1,600 times under clients that verify
	CHURN_PERCENT=100 $(GO) test $(TEST_FLAGS) -v -run TestChurn ./interop

.PHONY: check-qmp-shell
check-qmp-shell: build ## drive our monitor with QEMU's qmp-shell, which is downloaded from Debian once
	@scripts/check-qmp-shell $(BIN)

.PHONY: bench-pause
bench-pause: build ## how long a client stands still while its disk is changed, beside qemu-storage-daemon
	$(GO) run ./internal/bench/pause --ours $(BIN)

.PHONY: vet
vet: ## go vet and gofmt, for every set of build tags
	@scripts/vet

.PHONY: lint
lint: deps vet ## vet, and shellcheck on the scripts
	@scripts/lint-shell

.PHONY: docs
docs: ## generate the man pages into docs/man
	$(GO) generate ./cmd/nbd-dataplane

.PHONY: clean
clean: ## remove what was built and what make run left; .cache/ stays
	rm -rf bin run
