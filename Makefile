# Each target sets up what it needs in .venv; a second run finds it there.

NODE_TESTS := tests/interop/node

# `make up PORT=9000 SIDECARS=1`, for instance; what is not given keeps the stack's own default.
# Only what stands on make's own command line: PORT or DIR in somebody's environment is not meant for us.
given = $(if $(filter command line,$(origin $(1))),$(2) $($(1)))
UP_OPTIONS = $(call given,PORT,--port) $(call given,SIDECAR_PORT,--sidecar-port) $(call given,DIR,--dir) \
	$(call given,SIDECARS,--sidecars) $(call given,REDIS_URL,--redis-url)

.PHONY: help demo up test check bench lock

help: ## Say what there is.
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

demo: .venv/installed ## Watch rotations and revocations under traffic, in a throwaway system (about 40 s).
	@.venv/bin/python -m stack demo

up: .venv/installed ## Run the whole system here until Ctrl-C (PORT, SIDECAR_PORT, DIR, SIDECARS, REDIS_URL).
	@.venv/bin/python -m stack up $(UP_OPTIONS)

test: .venv/installed $(NODE_TESTS)/node_modules/.installed ## Run all tests.
	.venv/bin/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

check: .venv/installed ## Look at format, lint, types and who imports whom.
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

bench: wrk-is-there .venv/installed $(NODE_TESTS)/node_modules/.installed ## Measure (wants wrk) and write benchmarks/results.json.
	@.venv/bin/python -m benchmarks

.PHONY: wrk-is-there
wrk-is-there:
	@command -v wrk >/dev/null || { echo "make bench: wrk makes the load; install it first (apt-get install wrk)" >&2; exit 2; }

lock: .venv/installed ## Resolve the dependencies of pyproject.toml anew (UPGRADE=1: to their newest).
	@requirements/lock $(if $(UPGRADE),--upgrade)

.venv/installed: requirements/dev.txt requirements/install pyproject.toml
	@requirements/install

$(NODE_TESTS)/node_modules/.installed: $(NODE_TESTS)/package-lock.json .venv/installed
	@PATH="$(CURDIR)/.venv/bin:$$PATH" npm ci --prefix $(NODE_TESTS) --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@
