# Targets make what they need, also the environment, and can be called again at any time. `make` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Any Python 3.11 or 3.12 will do; `make PYTHON=/path/to/python3.11 ...` chooses one.
ifndef PYTHON
is_usable := import sys; (3, 11) <= sys.version_info[:2] <= (3, 12) and print(sys.executable)
PYTHON := $(firstword $(foreach name,python3 python3.12 python3.11,$(shell $(name) -c '$(is_usable)' 2>/dev/null)))
endif

# auto, cpu or gpu: which lock the environment is made from
HARDWARE ?= auto

VENV := .venv
BIN := $(VENV)/bin

# Wall seconds within which `make test` ends, whatever hangs.
TEST_SECONDS := 4900

.PHONY: help setup sandbox-image demo gpu-check test test-long test-gpu-versions check format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-18s %s\n", $$1, $$2}'

setup: ## make the environment .venv from the lock in requirements/
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; call make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" scripts/install.py --venv $(VENV) --hardware $(HARDWARE)

sandbox-image: setup ## build the image in which model-written code runs
	@$(BIN)/codedance sandbox build

demo: ## train and evaluate the tiny model end to end; resumes where it was stopped
	@started=$$(date +%s); $(MAKE) --no-print-directory setup; \
	$(BIN)/python -m recipes.cpu_demo.run --setup-seconds $$(($$(date +%s) - started))

gpu-check: setup ## check a machine with GPUs: imports, flash-attn, short runs, agreement, memory
	@$(BIN)/python -m recipes.gpu_check.run --out outputs/gpu_check

# Without an engine the tests that need one are skipped, in CI (CI=true) they fail.
test: setup ## run the tests, with the real vLLM, FSDP, Ray and Docker
	@$(BIN)/codedance sandbox build || test -z "$${CI:-}"
	@scripts/test.sh $(BIN)/python $(TEST_SECONDS)

test-long: setup ## run what `make test` leaves out: an evaluation, LoRA, two ranks, a million broken frames
	@$(BIN)/codedance sandbox build || test -z "$${CI:-}"
	@timeout --foreground --signal=INT --kill-after=60 $(TEST_SECONDS) $(BIN)/python -m pytest -m long --durations=15

# An environment of its own, for the versions that GPUs get; the tests are those of whole runs on the tiny model.
test-gpu-versions: ## run short trainings on the CPU with the versions of vLLM and torch that GPUs get
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; call make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" scripts/install.py --venv $(VENV)-gpu-versions --hardware cpu-gpu-versions
	@GPU_VERSIONS=1 timeout --foreground --signal=INT --kill-after=60 $(TEST_SECONDS) \
		$(VENV)-gpu-versions/bin/python -m pytest tests/e2e/test_gpu_versions.py

check: setup ## format, lint, types, dependency directions, fast tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q -m "not docker and not slow" tests/unit

format: setup ## format the code and apply the fixes of the linter
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## remove the environment, caches and leftover containers; outputs/ stays
	@test ! -x $(BIN)/codedance || $(BIN)/codedance sandbox clean || true
	@rm -rf $(VENV) $(VENV)-gpu-versions build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find codedance_verl recipes sandbox_image tests -name __pycache__ -type d -prune -exec rm -rf {} +
