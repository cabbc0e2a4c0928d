.DEFAULT_GOAL := help
.PHONY: help setup build native check test chart-test chart-schema demo bench gpu-bundle gpu-test gpu-selftest clean

TSX := node --import tsx
VITEST := node_modules/.bin/vitest run --reporter=default --reporter=json

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Installs what is missing on this machine (Debian 12 or later, as root)
	@test/real/environment/setup.sh

# Not `npm ci`: it insists on lock entries for the optional packages of every platform, and mirrors may carry this platform's only.
node_modules/.package-lock.json: package.json package-lock.json
	npm install --no-save --no-audit --no-fund --loglevel=error
	@touch $@

build: node_modules/.package-lock.json native ## Builds the programs: dist/ and native/build/
	node build.mjs

native: ## Builds the C programs: native/build/
	$(MAKE) --no-print-directory -C native all $(if $(wildcard test/native/standin),standin)

check: node_modules/.package-lock.json ## Formatting, types, lint, unused code; linters of the C and shell programs
	npm run --silent check
	$(MAKE) --no-print-directory -C native lint
	shellcheck --severity=warning .ci/run $$(git ls-files '*.sh')

# The native tests run twice: against the programs as shipped, and against a build with the address and undefined-behaviour sanitizers.
test: setup build ## Runs all tests for real; ends with the line "tests: N passed, N failed, N skipped"
	$(MAKE) --no-print-directory -C native sanitize
	@mkdir -p .cache && rm -f .cache/report-*.json
	@status=0; \
	SNAPSHOT_NATIVE_DIR=native/build/asan $(VITEST) --project native --outputFile.json=.cache/report-sanitized.json || status=1; \
	$(VITEST) --outputFile.json=.cache/report-all.json || status=1; \
	$(TSX) test/closing-line.ts .cache/report-sanitized.json .cache/report-all.json || status=1; exit $$status

chart-test: node_modules/.package-lock.json ## Renders the Helm chart over a matrix of values and checks what comes out
	@test/chart/get-helm.sh && mkdir -p .cache
	$(VITEST) --project chart --outputFile.json=.cache/report-chart.json

chart-schema: node_modules/.package-lock.json ## Makes the chart's values.schema.json from the agent's configuration schema
	@$(TSX) deploy/chart-values/write.ts

demo: setup build ## Checkpoints a running worker and restores it into another pod, before your eyes
	@$(TSX) bench/demo.ts

bench: setup build ## Measures checkpoint, restore and the watch on many pods on this machine
	@$(TSX) bench/run.ts

gpu-bundle: build ## Packs what the GPU tests need on a machine without network: .gpu/
	@$(TSX) test/gpu/bundle.ts

gpu-test: ## Runs the GPU tests from the bundle, as root on a machine with a GPU; GPU_TEST='--only container' for a part
	@test/gpu/gpu-test.sh $(GPU_TEST)

gpu-selftest: setup build ## Runs the GPU tests here, over what stands for a GPU: shows that the tests work
	@$(MAKE) --no-print-directory -C native standin
	@$(TSX) test/gpu/run.ts --stand-in --only cpu,container,torch,live,compile-workers,faults,two-gpus

include deploy/images/images.mk

clean: ## Removes what was built and cached, and what interrupted tests left running
	@if [ -d node_modules/tsx ]; then $(TSX) test/real/environment/clean.ts; fi
	rm -rf dist native/build .cache .gpu .gpu-tree gpu-results
