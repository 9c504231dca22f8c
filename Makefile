# Tesserae. `make demo` needs Go alone; `make test` installs the Debian packages
# that its tests drive (see .ci/packages).

SHELL   := /bin/bash
GO      ?= go
BIN     := bin
GOFLAGS_STATIC := -trimpath -ldflags "-s -w"
COMMANDS := ./hsm/cmd/hsmd ./orchestrator/cmd/orchestratord ./vcm/cmd/vcmd \
	./sp-tools/cmd/vcmadmin ./sp-tools/cmd/hsmadmin ./tenant/cmd/ptokenadmin \
	./licensing/cmd/vendor ./conformance/cmd/kmc ./conformance/cmd/meter ./conformance/cmd/vend \
	./conformance/cmd/stsvectors ./conformance/cmd/demo

.PHONY: build demo test bench crash isolation isolation-v2 interop lint scale generate clean packages

build: ## static binaries under bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build $(GOFLAGS_STATIC) -o $(BIN)/ $(COMMANDS)

demo: build ## from nothing to tokens that the virtual meter accepts; KEEP=1 leaves it running
	@$(BIN)/demo -bin $(BIN) $(if $(KEEP),-keep)

packages: ## what the tests need besides Go
	@.ci/packages

test: packages ## the whole suite, with the race detector
	@.ci/reduced
	$(GO) run ./conformance/cmd/stsvectors conformance/vectors/sts-tokens.json
	$(GO) test -race -timeout 30m ./...

lint: ## gofmt, vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck $$($(GO) list ./... | grep -v /gen/)

bench: ## one line a benchmark, with its ratio to a reference of the same run
	@$(GO) run ./conformance/cmd/bench

# The npm package of Thrift, for the client in Node only.
NODE_THRIFT ?= thrift@0.21.0

interop: build ## vendors' Thrift clients and the guide's programs against a live VCM; installs what they need
	@.ci/packages interop
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$$dir" $(NODE_THRIFT) && \
	$(GO) run ./conformance/cmd/interop --bin $(BIN) --node-modules "$$dir/node_modules" $(if $(LANGUAGES),--languages $(LANGUAGES))

crash: build ## a minute of 64 clients vending to 50 meters while the VCM's process is killed 100 times
	TESSERAE_BIN=$(abspath $(BIN)) $(GO) test -count 1 -v -run TestVCMKilled ./conformance/crash -crash.vcm-kills 100 -crash.vcm-time 1m

N ?= 1000
scale: build ## N VCMs through their life with the orchestrator killed in between; prints times and memory
	@$(GO) run ./conformance/cmd/scale -bin $(BIN) -n $(N)

isolation: ## VCMs that were taken over against every layer, as root and as nobody; about six minutes
	@dir=$$(mktemp -d) && chmod 755 "$$dir" && trap 'rm -rf "$$dir"' EXIT && \
	CGO_ENABLED=0 $(GO) build -o "$$dir/isolation" ./conformance/cmd/isolation && "$$dir/isolation" $(if $(PARTS),-parts $(PARTS))

V2_PARTS = matrix,report,resources,groups,kills
V2_ROWS  = nothing,only cgroup,all but cgroup,everything

isolation-v2: ## the same for control groups of version 2, in a virtual machine (QEMU, no KVM needed) with a Debian kernel; about four minutes
	@.ci/packages machine
	@dir=$$(mktemp -d) && chmod 755 "$$dir" && trap 'rm -rf "$$dir"' EXIT && \
	kernel=$(KERNEL) && { [ -n "$$kernel" ] || kernel=$$(.ci/kernel "$$dir/kernel"); } && \
	CGO_ENABLED=0 $(GO) build -o "$$dir/isolation" ./conformance/cmd/isolation && \
	"$$dir/isolation" -kernel "$$kernel" -parts "$(or $(PARTS),$(V2_PARTS))" -rows "$(or $(ROWS),$(V2_ROWS))"

generate: ## regenerate the Thrift code (Debian's thrift-compiler) and check that nothing else changed
	internal/api/generate.sh

clean:
	rm -rf $(BIN) state
