# `make run` sets up and runs the daemon on the demo site; `make help` lists the rest.

VENV := .venv
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools

# A shell that sets it would have every one of thousands of starts compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

# Whether a Python is new enough and can make virtual environments.  It is run, not only
# looked for: a name on the PATH may be a shim with nothing behind it.
FITS := -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p $(FITS); then echo $$p; break; fi; done)

.PHONY: run test check bench bench-quick soak clean help

run: $(TOOLS)  ## run the daemon on the demo site, in the foreground
	$(VENV)/bin/assetd run -C tests/sites/demo

test: check $(TOOLS)  ## lint, types and tests
	$(VENV)/bin/pytest -n 2

check: $(READY)  ## lint and types
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

bench: $(TOOLS)  ## measure assetd, its floors and its peers: an hour; tables in build/bench
	$(VENV)/bin/python -m tests.bench

bench-quick: $(TOOLS)  ## the same for assetd and its floors alone, in two minutes
	$(VENV)/bin/python -m tests.bench --quick

soak: $(TOOLS)  ## the storms of `make test`, for hours; PARTS="disk power" SEED=N: some, once more
	$(VENV)/bin/python -m tests.soak $(PARTS) $(if $(SEED),--seed $(SEED) --again)

clean:  ## remove what `make` made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf tests/sites/demo/public tests/sites/demo/.assetd
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | expand -t 16

# Done again when pyproject.toml changes.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) $(FITS) || { \
		echo "make: no Python 3.11 or later that can make virtual environments." >&2; \
		echo "Debian and Ubuntu keep that part in a package of its own: apt-get install python3-venv" >&2; \
		echo "A Python elsewhere: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

# The compilers that run on Node.  All else works without them, so no network is no reason to
# stop; it is tried again the next time.
$(TOOLS): $(READY) processors/assetd_processors/node/package-lock.json
	@$(VENV)/bin/assetd tools install && touch $@ || \
		echo "make: going on without the tools that run on Node" >&2
