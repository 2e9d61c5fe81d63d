# What CONTRIBUTING.md describes. `make` lists the targets.

# The test command. README.md names the same one; .ci/run compares them. One package
# at a time: tests that measure time must not fight over the cores with others.
TEST := go test -race -p 1 -timeout 30m ./...

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := $(or $(shell go env GOBIN),$(shell go env GOPATH)/bin)/golangci-lint

# Modules of their own, which ./... does not reach.
MODULES := icalendar difftest bench

FUZZTIME ?= 10s
BENCH ?= .

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-12s %s\n", $$1, $$2 }'

# The fault tests write their summary there, because go test hides what a package that passed printed.
FAULTS_SUMMARY := $(CURDIR)/.faults-summary

.PHONY: test
test: ## all tests with the race detector
	FAULTS_SUMMARY=$(FAULTS_SUMMARY) $(TEST)
	@cat $(FAULTS_SUMMARY)
	$(foreach module,$(MODULES),go test -C $(module) -short ./... &&) true

.PHONY: quick
quick: ## all tests, without the race detector
	FAULTS_SUMMARY=$(FAULTS_SUMMARY) go test -p 1 -timeout 30m ./...
	@cat $(FAULTS_SUMMARY)

.PHONY: difftest
difftest: ## schedules against other implementations, a million cases; DIFFTEST_SEED=n repeats a run
	go test -C difftest -count=1 -timeout 20m -v ./...

.PHONY: faults
faults: ## every fault test, the long ones too; FAULTS_SEED=n repeats a run
	FAULTS=full FAULTS_SUMMARY=$(FAULTS_SUMMARY) go test -count=1 -timeout 40m -v ./faults
	go test -count=1 -timeout 15m ./store -run "TestModel$$" -rapid.checks=500
	@cat $(FAULTS_SUMMARY)

.PHONY: lint
lint: lint-tool ## gofmt, go vet, golangci-lint
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	$(GOLANGCI_LINT) run
	$(foreach module,$(MODULES),(cd $(module) && go vet ./... && $(GOLANGCI_LINT) run) &&) true

.PHONY: cover
cover: ## coverage over all packages, in cover.out
	go test -coverpkg=./... -coverprofile=cover.out ./...
	@go tool cover -func=cover.out | tail -n 1

# Go fuzzes one target at a time.
.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (10s)
	@grep -rHoE --include='*_test.go' --exclude-dir=bench '^func Fuzz[A-Za-z0-9_]*' . | \
	while IFS=: read -r file func; do \
		name=$${func#func }; echo "$$name in $$(dirname "$$file")"; \
		go test -C "$$(dirname "$$file")" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x . </dev/null || exit 1; \
	done

.PHONY: mutants
mutants: ## make 18 mistakes, one at a time; the tests have to find each
	go run ./internal/mutants

.PHONY: bench
bench: ## Carillon beside its peers and bare Redis, into bench/results.json and docs/bench: more than an hour
	cd bench && go run . -json results.json -plots ../docs/bench $(BENCH_FLAGS)

.PHONY: bench-quick
bench-quick: ## its main figures and the goals, in a minute; BENCH_FLAGS='-run drain -rounds 5' selects
	cd bench && go run . -quick $(BENCH_FLAGS)

.PHONY: bench-go
bench-go: ## latency benchmarks of the root package; BENCH=regexp selects
	go test -run '^$$' -bench '$(BENCH)' -benchmem .

.PHONY: examples
examples: ## run the quick start
	go run ./examples/quickstart

.PHONY: digest-proof
digest-proof: ## digest Go's source with three workers, one of them killed
	DIGEST_PROOF=full go test -count=1 -run TestProof -v ./examples/digest

.PHONY: crontab-proof
crontab-proof: ## a minute-by-minute crontab on three instances, one of them killed: seven minutes
	CRONTAB_PROOF=full go test -count=1 -timeout 20m -run TestProof -v ./examples/crontab

.PHONY: ci
ci: ## everything that has to pass before a merge
	.ci/run

# For .ci/run: what `make test` runs.
.PHONY: test-command
test-command:
	@echo '$(TEST)'

# Installs the pinned linter unless exactly that version is there.
.PHONY: lint-tool
lint-tool:
	@$(GOLANGCI_LINT) version 2>/dev/null | grep -qwF '$(GOLANGCI_LINT_VERSION:v%=%)' || \
	go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
