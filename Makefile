# make help lists the targets. Each makes the environment it needs; a second run finds it made.
PYTHON ?= python3
PIP := -m pip install --quiet --disable-pip-version-check --only-binary :all: --constraint constraints.txt
RUN := server,embedded,kafka,participant
DEV := .venv-dev/bin
PACKAGES := sagad sagad_server sagad_participant sagad_examples sagad_client bench
# What `make test ARGS="..."` and `make bench ARGS="..."` hand on.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo run test test-redis test-kafka test-chaos test-chaos-kafka faults simulate mutants check bench profile generate baseline fmt constraints clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 14

demo: .venv/.stamp ## shows sagas that succeed, compensate and survive a crash of the coordinator
	.venv/bin/python -m sagad_examples.demo $(ARGS)

run: .venv/.stamp ## serves on 127.0.0.1:7400 with the example participants, until Ctrl-C
	.venv/bin/python -m sagad_examples.run $(ARGS)

test: .venv-test/.stamp ## unit, contract and integration tests, several at once; ARGS="-k name" chooses
	.venv-test/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

test-redis: .venv-test/.stamp ## the part of the tests that needs Redis; SAGAD_TEST_REDIS=redis://... takes one of yours
	.venv-test/bin/python -m pytest tests/integration/participant tests/integration/guard -k redis $(ARGS)

test-kafka: .venv-test/.stamp ## the tests that need Kafka; SAGAD_TEST_KAFKA=HOST:PORT names one that runs
	.venv-test/bin/python -m pytest tests/integration/mirror tests/integration/projection $(ARGS)

test-chaos: .venv-test/.stamp ## kills real processes under load; SAGAD_CHAOS_KILLS says how often
	.venv-test/bin/python -m pytest tests/chaos $(ARGS)

test-chaos-kafka: .venv-test/.stamp ## kills relays, projections and Kafka 30 times while sagas run; needs Java, Maven
	.venv-test/bin/python -m pytest tests/chaos_kafka -s $(ARGS)

faults: .venv-test/.stamp ## every kind of fault, many times, and the table of docs/explanation/faults.md anew
	SAGAD_FAULTS_PAGE=docs/explanation/faults.md SAGAD_CHAOS_KILLS=$(or $(SAGAD_CHAOS_KILLS),56) \
	  SAGAD_CHAOS_NODE_KILLS=$(or $(SAGAD_CHAOS_NODE_KILLS),1000) SAGAD_CHAOS_IN_FLIGHT=$(or $(SAGAD_CHAOS_IN_FLIGHT),20000) \
	  .venv-test/bin/python -m pytest $(addprefix tests/chaos/test_,all_faults.py many_kills.py in_flight.py asynchronous_fail_over.py) $(ARGS)

simulate: .venv-test/.stamp ## several nodes in a seeded world: SEED=n replays one with its trace, MINUTES=n hunts
	PYTHONPATH=tests .venv-test/bin/python -m support.simulation $(if $(SEED),--seed $(SEED),--minutes $(or $(MINUTES),1)) $(ARGS)

mutants: .venv-test/.stamp ## deliberate bugs, each caught by its recorded seed: the simulation finds bugs
	.venv-test/bin/python -m pytest tests/mutants $(ARGS)

check: .venv-dev/.stamp ## lint, format, types, import rules, contract, generated code
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy $(addprefix -p ,$(PACKAGES))
	$(DEV)/lint-imports
	$(DEV)/buf lint
	$(DEV)/buf breaking proto --against proto/baseline.binpb
	$(DEV)/python tools/generate.py --check
	$(DEV)/python tools/contract_reference.py --check

bench: .venv/.stamp ## sagas/s, latency and CPU beside the barest durable write path
	.venv/bin/python -m bench $(ARGS)

profile: .venv-dev/.stamp ## a flame graph of the coordinator in bench/out; MODE=unary-64 chooses
	$(DEV)/python -m bench profile --mode $(or $(MODE),unary-64) $(ARGS)

generate: .venv-dev/.stamp ## Python from the .proto files, and the made parts of docs/
	$(DEV)/python tools/generate.py
	$(DEV)/python tools/contract_reference.py
	$(DEV)/python tools/config_reference.py
	$(DEV)/python tools/command_reference.py
	$(DEV)/python tools/state_diagrams.py

baseline: .venv-dev/.stamp ## the contract that later ones must not break; only at a release
	$(DEV)/buf build proto --output proto/baseline.binpb

fmt: .venv-dev/.stamp ## formats, and mends what ruff can mend
	$(DEV)/ruff check --fix .
	$(DEV)/ruff format .

constraints: ## pins the newest versions that fit together, for all environments
	rm -rf .venv-constraints
	$(PYTHON) -m venv .venv-constraints
	: > constraints.txt
	.venv-constraints/bin/python $(PIP) --editable '.[$(RUN),test,dev]'
	.venv-constraints/bin/python -m pip freeze --exclude-editable > constraints.txt
	rm -rf .venv-constraints

clean: ## removes what make has made; the data in .sagad stays
	rm -rf .venv .venv-test .venv-dev .venv-constraints dist bench/out .ci/bin
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.stamp: EXTRAS := $(RUN)
.venv-test/.stamp: EXTRAS := $(RUN),test
.venv-dev/.stamp: EXTRAS := $(RUN),test,dev
.venv/.stamp .venv-test/.stamp .venv-dev/.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'sagad needs Python 3.11 or newer, and $(PYTHON) is: '"$$($(PYTHON) --version 2>&1)"'. Name another: make PYTHON=python3.12'; \
	  exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --editable '.[$(EXTRAS)]'
	@touch $@
