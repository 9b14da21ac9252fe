# make run: the server with everything it needs; make test: all tests; make install: both.
# The recipes use relative paths only, so the checkout may live in a path with a space.
SHELL := /bin/sh
PORT ?= 8080

.PHONY: install run test campaign lint docs house bench clean

.venv/bin/python:
	@. ./.ci/python.sh && "$$PYTHON" -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip

.venv/.run: .venv/bin/python setup.cfg pyproject.toml
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[embedded,speed]"
	@touch .venv/.run

.venv/.all: .venv/bin/python setup.cfg pyproject.toml
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[embedded,speed,test,lint]"
	@touch .venv/.run .venv/.all

install: .venv/.all

run: .venv/.run
	@VIVA_PORT="$${VIVA_PORT:-$(PORT)}" exec .venv/bin/viva-server serve --open-link

# Without bytecode each of the many processes would compile all that it imports.
test: .venv/.all
	@sh .ci/packages.sh
	PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest -n 2 --dist loadfile

# Faults at random between servers and database; CAMPAIGN="--seed 80" repeats a run.
campaign: .venv/.all
	@sh .ci/packages.sh
	.venv/bin/python -m tests.faults.campaign \
	    --only random,two_versions,standby_promoted,purged_in_a_cut $(CAMPAIGN)

lint: .venv/.all
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

docs: .venv/.run
	.venv/bin/python docs/make_http_api.py

house: .venv/bin/python
	@.venv/bin/python docs/house.py

.venv/.bench: .venv/bin/python setup.cfg pyproject.toml
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[embedded,speed,bench]"
	@touch .venv/.bench

bench: .venv/.bench
	.venv/bin/python -m benchmarks

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
