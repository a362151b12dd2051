# `make run` runs tidegate, `make test` tests it. `make` alone lists the other targets.
SHELL := /bin/bash
export CGO_ENABLED := 0
export TIDEGATE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tidegate
export FUZZTIME ?= 10s
export TIDEGATE_SHARED ?= $(abspath $(CURDIR)/../shared)

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
DATA_DIR ?= .tidegate
PKG     ?= ./...
# Where CI runs as root, everything that the tests need is there: none may be skipped.
NO_SKIPS := $(if $(CI),$(if $(filter 0,$(shell id -u)),-no-skips))
LINT    := $(TIDEGATE_CACHE)/bin/golangci-lint

.PHONY: help
help: ## print these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

.PHONY: run
run: build ## run the whole system on this machine, with a demo; FOR=60s ends it, DATA_DIR=dir is the folder of its data, ARGS='--config f.yml'
	@deploy/fetch-libchdb.sh || echo "run: no embedded ClickHouse; set clickhouse.addr in the configuration to use another one"
	@exec bin/tidegate run --demo --data-dir $(DATA_DIR) $(if $(FOR),--for $(FOR)) $(ARGS)

.PHONY: build
build: ## build bin/tidegate, a static binary, and bin/tidegate-clickhouse, which loads the embedded ClickHouse
	@echo "build: bin/tidegate $(VERSION)"
	@go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/tidegate ./cmd/tidegate
	@go build -trimpath -ldflags "-s -w" -o bin/tidegate-clickhouse ./cmd/tidegate-clickhouse

.PHONY: test
test: setup lint build ## run everything that CI runs: real servers, real containers, kills; installs what it needs
	go run ./bench/testcount $(NO_SKIPS) -count=1 -timeout 25m -p 2 ./...
	@echo "test: the counts of every capture, beside tshark's count"
	@set -o pipefail; go test -count=1 -run 'TestReplayOfEveryCapture' -v ./cmd/tidegate | sed -E '/^(=== |--- |PASS|ok )/d'

.PHONY: setup
setup: ## install what the tests need: packages (as root), Kafka, ClickHouse, the linter
	@deploy/setup-test.sh

.PHONY: unit
unit: ## run the quick tests of PKG (default all), without servers
	go test -short $(PKG)

.PHONY: race
race: ## run the quick tests of PKG under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -short -race $(PKG)

.PHONY: lint
lint: ## check the format; vet, golangci-lint
	@test -x $(LINT) || deploy/setup-test.sh lint
	@out=$$(go tool gofumpt -l $$(git ls-files '*.go' | grep -vE '\.pb\.go$$')); if [ -n "$$out" ]; then echo "lint: not gofumpt'ed: $$out"; exit 1; fi
	$(LINT) run ./...

.PHONY: fmt
fmt: ## format the code
	go tool gofumpt -l -w $$(git ls-files '*.go' | grep -vE '\.pb\.go$$')

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s) and print a table; those of PKG only
	@bench/fuzz.sh $(if $(filter ./...,$(PKG)),,$(PKG))

.PHONY: mutate
mutate: ## test the tests of PKG (./pipeline/alerts): list those of N (30) changes, drawn by SEED (1), that no quick test notices
	go run ./bench/mutate -n $(or $(N),30) -seed $(or $(SEED),1) $(if $(filter ./...,$(PKG)),./pipeline/alerts,$(PKG))

.PHONY: golden
golden: ## rewrite the generated files: docs/FIELDS.md, docs/CONFIG.md, tables of docs/SIGMA.md, the schema, goldens; review the diff like code
	go test ./pipeline/clickhouse -run Generated -update
	go test ./cmd/tidegate -run 'Golden|Stale' -update
	go test ./detectors/sigma -run Manual -update
	GOLDEN=1 go test ./detectors/rules -run ErrorsNameTheirPosition
	GOLDEN=1 go test ./protocols/... ./collector/sessions ./collector/reassembly -run Goldens

.PHONY: rules
rules: build ## check and test every rule
	bin/tidegate rules test rules

.PHONY: models
models: ## train the classifier again; the result is the same to the byte
	go run ./models/train

.PHONY: bench
bench: ## run benchmarks and whole-process measurements; prints the rows of bench/RESULTS.md
	bench/run.sh

.PHONY: bench-rules
bench-rules: ## measure what rules cost, over one event and over several, beside an earlier version; writes the table of bench/rules.md
	bench/run.sh rules

.PHONY: proto
proto: ## generate event.pb.go from event.proto (needs protoc)
	pipeline/generate.sh

.PHONY: image
image: build ## build the container image tidegate:latest, FROM scratch
	docker build -f deploy/Dockerfile -t tidegate:$(VERSION) -t tidegate:latest .
