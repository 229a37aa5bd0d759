# make run     sets everything up and runs the service: the demonstration, or with
#              make run ARGS="--config submitd.toml" a configuration
# make test    sets everything up and runs the tests; COVERAGE=1 measures branch coverage
# make nightly the tests whose long form takes hours: more kills, more random input
# make fuzz    tries all parsers and dialogues with random input for 10 minutes; SECONDS=60 for less
# make load    10,000 idle and 1,000 busy connections for 10 minutes; see python -m tests.load --help
# make check   ruff, mypy, bandit and the documentation (make lint, types, security, docs)
#
# Needs Python 3.11 or newer with pip, and nothing else; another one: make PYTHON=python3.12 run

PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests
ARGS ?=
KILLS ?= 200
COVERAGE ?=
SECONDS ?= 600

BIN = $(VENV)/bin
# The virtual environment is made without pip, and filled by the pip outside: so a Python without
# ensurepip (Debian's, without python3-venv) will do.
INSTALL = $(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check \
	--config-settings editable_mode=compat --editable
TRIAL = -m twisted.trial --temp-directory=$(VENV)/trial

.PHONY: run test nightly fuzz load check lint types security docs clean
.DELETE_ON_ERROR:

run: $(VENV)/run.done
	$(BIN)/twistd --nodaemon --pidfile= submitd $(ARGS)

test: $(VENV)/test.done
ifeq ($(COVERAGE),)
	$(BIN)/python $(TRIAL) $(TESTS)
else
	$(BIN)/python -m coverage run $(TRIAL) $(TESTS)
endif

# A step for each long form; all of them run, and the status says whether one failed.
nightly: $(VENV)/test.done
	@status=0; \
	SUBMITD_KILLS=$(KILLS) $(BIN)/python $(TRIAL) tests.crash || status=1; \
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) || status=1; \
	exit $$status

fuzz: $(VENV)/test.done
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

load: $(VENV)/test.done
	$(BIN)/python -m tests.load $(ARGS)

check: lint types security docs

lint: $(VENV)/dev.done
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# Of the manual's examples, these are not: one is a realm without types, two meet Twisted where its
# own types are narrower than what it takes, and one is a test of one of these, by trial.
UNTYPED := $(addprefix docs/examples/,embed.py environment.py twistedmail_realm.py policytest.py)

types: $(VENV)/dev.done
	$(BIN)/mypy
	$(BIN)/mypy $(filter-out $(UNTYPED),$(wildcard docs/examples/*.py))

security: $(VENV)/dev.done
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive submitd

docs: $(VENV)/dev.done
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	$(BIN)/sphinx-build -q -W -b man docs docs/_build/man

$(VENV)/run.done: $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) .
	@touch $@

$(VENV)/test.done: $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) ".[test]"
	@touch $@

$(VENV)/dev.done: $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) ".[dev]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "submitd needs Python 3.11 or newer; $(PYTHON) is not." \
	    "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { \
	  echo "$(PYTHON) has no pip: install it (on Debian: apt-get install python3-pip)." >&2; exit 1; }
	@$(PYTHON) -c 'import venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no module venv (on Debian: apt-get install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv --without-pip $(VENV)

clean:
	rm -rf $(VENV) build dist submitd.egg-info docs/_build .coverage .coverage.*
