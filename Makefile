# make run        venv, install, and the whole default run: noise to RLHF, chat and report
# make test       venv, install, and the test suite
# make test-full  the same with what is slow: kills on the full recipe, several ranks, peers (their environment is that of make bench)
# make bench      side by side with other tools, in an environment of their own (SFT=, PAIRS=, NANOGPT=, SHAKESPEARE=, NOVELS=, NANOCHAT=: bench/README.md)

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do $$name -c '' 2>/dev/null && { echo $$name; break; }; done)
BIN := .venv/bin

# One process of tests for each core. Passive: a thread of torch's that waits must not spin on a core that another test is at work on.
# Tests that measure seconds come after the others, with nothing beside them: two processes on one core's two halves halve each other's speed.
TOGETHER := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
ALONE := $(BIN)/python -m pytest
QUICK := not slow and not gpu and not peers

.PHONY: run test test-full bench lint clean

run: .venv/installed
	$(BIN)/fromnoise run world

test: .venv/installed-dev
	$(TOGETHER) -m "$(QUICK) and not timed"
	$(ALONE) -m "$(QUICK) and timed"

PEERS ?= .venv-peers/bin/python
PEERS_INSTALLED := $(if $(filter .venv-peers/%,$(PEERS)),.venv-peers/installed)

test-full: .venv/installed-dev $(PEERS_INSTALLED)
	FROMNOISE_PEERS_PYTHON=$(PEERS) $(TOGETHER) -m "not gpu and not timed"
	$(ALONE) -m "not gpu and timed"

bench: .venv/installed $(PEERS_INSTALLED)
	$(BIN)/python bench/bench.py --peers $(PEERS) $(if $(SFT),--sft $(SFT)) $(if $(PAIRS),--pairs $(PAIRS)) $(if $(NANOGPT),--nanogpt $(NANOGPT)) \
		$(if $(SHAKESPEARE),--shakespeare $(SHAKESPEARE)) $(if $(NOVELS),--novels $(NOVELS)) $(if $(NANOCHAT),--nanochat $(NANOCHAT)) $(BENCH)

.venv-peers/installed: bench/peers/requirements.txt constraints.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet -c constraints.txt torch
	.venv-peers/bin/python -m pip install --quiet -r bench/peers/requirements.txt
	@touch $@

lint: .venv/installed-dev
	$(BIN)/ruff check src tests bench

# torch comes first and alone: its pin then takes a CPU build that lies at hand before anything else asks for another.
.venv/torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fromnoise needs Python 3.11 or newer; found: $(PYTHON)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	@touch $@

.venv/installed: .venv/torch pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/torch pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ .venv/installed

clean:
	rm -rf .venv build dist
