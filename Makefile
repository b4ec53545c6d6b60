# Everything a change needs, on a fresh Debian machine with Go, git and make. `make test` first; CONTRIBUTING.md has the rest.

GO      ?= go
LINT    := $(GO) tool -modfile=tools/go.mod golangci-lint
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# The packages whose mistakes cost data run under the race detector in `make race`.
RACE := ./internal/fault ./internal/point/... ./internal/policy ./internal/protect ./internal/git ./internal/vault/... \
	./internal/forge/... ./internal/export ./internal/schedule ./internal/notify ./internal/cli ./internal/kube/... \
	./internal/evidence ./internal/scratchdir ./internal/database ./internal/controller ./internal/worker ./internal/blueprint/... ./internal/kando

# What damages vaults one blob after another works alone: the detector makes it ten times slower and can find nothing in it.
ALONE := ^Test(Lost|Damaged|FlippedBytes|NothingButPacks|PasswordChangeCutShort|ExpiryStopsHalfway|MaintainFrees|MaintainMerges|FullMaintenance)

# What stands in for the world: built from pinned modules, or fetched, at the first run.
SERVERS := kopia versitygw kubernetes

.PHONY: build test race lint generate e2e e2e-long e2e-cluster e2e-down bench verify servers debian

build: ## bin/backstay
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/backstay ./cmd/backstay

test: debian ## everything that needs no server but stock kopia, an S3 one and an API server of Kubernetes with its etcd
	@test/servers/build.sh $(SERVERS) >/dev/null
	@test/recordings.sh >/dev/null
	eval "$$(test/servers/build.sh $(SERVERS); test/recordings.sh)" && $(GO) test -timeout 20m ./...

race: debian
	@test/servers/build.sh $(SERVERS) >/dev/null
	eval "$$(test/servers/build.sh $(SERVERS); test/recordings.sh)" && $(GO) test -race -short -timeout 20m -skip '$(ALONE)' $(RACE)

e2e: debian build ## the built program against Gitea, sshd, stock kopia, the kill signal; as root also on a Kubernetes with Argo CD that it starts
	@test/servers/build.sh $(SERVERS) gitea argocd >/dev/null
	eval "$$(test/servers/build.sh $(SERVERS) gitea argocd)" && \
		BACKSTAY_TEST_BINARY=$(CURDIR)/bin/backstay $(GO) test -tags e2e -count=1 -timeout 90m ./test/e2e; \
		status=$$?; for name in backstay elsewhere; do test/cluster/down.sh $$name; done; exit $$status

e2e-long: debian build ## what takes its time: on the cluster every phase killed, 500 namespaces, tenants, a second cluster; huge forges
	@test/servers/build.sh $(SERVERS) gitea argocd >/dev/null
	@test/servers/flux/build.sh >/dev/null
	eval "$$(test/servers/build.sh $(SERVERS) gitea argocd; test/servers/flux/build.sh)" && \
		BACKSTAY_TEST_BINARY=$(CURDIR)/bin/backstay $(GO) test -tags e2e,long -count=1 -timeout 180m -run 'Cluster|LargeGitea|HugeMetadata|ProcessThatIsKilled' ./test/e2e; \
		status=$$?; for name in backstay elsewhere; do test/cluster/down.sh $$name; done; exit $$status

e2e-cluster: build ## starts a Kubernetes of one node, with Backstay's image and nothing of Backstay installed; needs root
	@test/debian.sh cluster
	@test/cluster/up.sh

e2e-down: ## ends it, and the second one that tests restore into
	@test/cluster/down.sh backstay
	@test/cluster/down.sh elsewhere

lint: ## the linters of .golangci.yml, about 20, each with its reason
	$(LINT) run ./...
	$(GO) vet -tags e2e ./test/e2e # without the long tests, with which it is linted

bench: build debian ## measures against git, stock kopia and restic; docs/performance.md keeps the results
	eval "$$(test/servers/build.sh kopia versitygw)" && \
		$(GO) run ./bench -backstay bin/backstay -kopia "$$BACKSTAY_TEST_KOPIA" -versitygw "$$BACKSTAY_TEST_VERSITYGW"
	$(GO) test -run '^$$' -bench . -benchtime 3x ./internal/vault

generate: ## what is made of api/v1alpha1 (deep copies, schema, reference, custom resources' definitions) and of the chart (manifests)
	$(GO) tool -modfile=tools/go.mod controller-gen object paths=./api/v1alpha1
	$(GO) test ./api/v1alpha1 -run OfTheTypes -count=1 -update
	$(GO) test ./deploy -run OfTheChart -count=1 -update

verify: lint generate ## what is generated, formatted or tidied must be committed that way
	$(LINT) fmt --diff ./...
	$(GO) mod tidy -diff
	$(GO) mod verify >/dev/null
	git diff --exit-code

servers: ## all test servers, into the user's cache directory; later runs take nothing
	test/servers/build.sh

debian: ## installs what tests run, where it is missing and we may
	@test/debian.sh
