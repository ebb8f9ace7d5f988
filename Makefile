# What a person and CI run. `make stability` is the main job, `make test` the tests; both prepare .venv first.

PYTHON ?= python3
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1
CYCLONEDX_VERSION := 7.5.0
OSV := api.osv.dev
KUBERAY_VERSION := 1.7.1
CRDS := .kuberay/$(KUBERAY_VERSION)
BIN := .venv/bin
CODE := hkrun tests benchmarks

# TORCH=cpu: torch without CUDA, from PyTorch's index of CPU builds or from that of TORCH_INDEX=URL. It stays so until
# TORCH= undoes it.
TORCH ?= $(if $(wildcard .venv/.synced-cpu),cpu)
TORCH_INDEX ?=
ifeq ($(TORCH),cpu)
STAMP := .venv/.synced-cpu
LOCKED := .venv/cpu.lock
SIZE := about 3 GB
INDEX := $(if $(TORCH_INDEX),--index $(TORCH_INDEX) --index-strategy unsafe-best-match,--torch-backend cpu)
else ifeq ($(TORCH),)
STAMP := .venv/.synced
LOCKED := requirements.lock
SIZE := 7 GB
INDEX :=
else
$(error TORCH is cpu, or empty for the builds with CUDA, and not $(TORCH))
endif
LOCK := $(BIN)/uv pip compile -q pyproject.toml --group dev --group docs --all-extras --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-header

BUILD_LOCK := echo 'hatchling>=1.27' | $(BIN)/uv pip compile -q - --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-header

# In containers it is often set, for images that hold no bytecode. Here each of many short processes would compile hkrun anew.
unexport PYTHONDONTWRITEBYTECODE

# A process per core and one more, four at most. The tests of a file share what is made for them, and one process starts
# Ray (tests/conftest.py). In the order that is given there, long files first, and not that of how many tests are in them.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: setup stability test test-all check docs keys lock audit sbom crds bench bench-gpu digits-recipe findings results numbers statistics statistics-of-runs

setup: $(STAMP)

stability: setup
	$(BIN)/hkrun sweep stability

test: setup
	$(BIN)/pytest $(PARALLEL) -m "not slow"

test-all: setup
	$(BIN)/pytest $(PARALLEL)

# Lint, format, types, layers, and whether the lock still follows pyproject.toml.
check: setup
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	cp requirements.lock .venv/requirements.lock
	$(LOCK) -o .venv/requirements.lock
	diff -u requirements.lock .venv/requirements.lock || { echo "requirements.lock: run make lock"; exit 1; }

# Keeps the versions that are there; newer ones with `make lock OPTIONS=--upgrade`.
lock: $(BIN)/uv
	$(LOCK) $(OPTIONS) -o requirements.lock
	$(BUILD_LOCK) $(OPTIONS) -o build.lock

# Known vulnerabilities of what the lock holds, as OSV's database knows them at this moment: it needs the internet.
audit: $(BIN)/uv
	@$(PYTHON) -c 'import urllib.request as r; r.urlopen("https://$(OSV)/v1/vulns/PYSEC-2023-74", timeout=10)' \
	  2>/dev/null || { echo "$(OSV), which knows the vulnerabilities, does not answer: nothing was audited"; exit 1; }
	$(BIN)/uv tool run --quiet --from pip-audit==$(PIP_AUDIT_VERSION) pip-audit \
	  --requirement requirements.lock --require-hashes --disable-pip --strict --vulnerability-service osv

# KubeRay's CRDs, by which `make test` checks RayCluster and RayJob where they are there: it needs the internet.
crds:
	@$(PYTHON) tests/deploy/fetch_crds.py $(KUBERAY_VERSION) $(CRDS)
	@echo "KubeRay $(KUBERAY_VERSION): CRDs in $(CRDS)"

# What the lock holds, as a CycloneDX bill of materials; the tools of development and all extras are in it.
sbom: $(BIN)/uv
	mkdir -p dist
	PYTHONWARNINGS=ignore $(BIN)/uv tool run --quiet --from cyclonedx-bom==$(CYCLONEDX_VERSION) cyclonedx-py \
	  requirements requirements.lock --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.json

# The pages as a site. Every link between them, with its anchor, must lead somewhere.
docs: setup
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html --conf-dir docs \
	  --doctree-dir .venv/doctrees . dist/site
	@echo "dist/site/index.html"

# The page of all keys again, after a key changed.
keys: setup
	$(BIN)/python docs/write_keys.py

# The reports in results/ again from the numbers beside them, after a change of the report; 5 says that runs diverged.
results: setup
	$(BIN)/hkrun report results || test $$? -eq 5

# Whether the code still gives the numbers of its epoch; then it counts as of that. OPTIONS=--new-epoch begins the next.
numbers: setup
	PYTHONPATH=.:tests $(BIN)/python tests/golden_curves.py $(OPTIONS)

# The tables of docs/statistics.md, simulated: a few minutes.
statistics: setup
	PYTHONPATH=.:tests $(BIN)/python tests/statistics_tables.py
	PYTHONPATH=.:tests $(BIN)/python tests/peers_tables.py

# What twenty seeds, at once or one by one, say of real runs beside a hundred: half an hour for 400 runs where they are not there yet.
STORE ?= hkrun-store
statistics-of-runs: setup
	$(BIN)/hkrun sweep stability --seeds 100 --store $(STORE)
	PYTHONPATH=.:tests $(BIN)/python tests/statistics_of_runs.py --store $(STORE)
	PYTHONPATH=.:tests $(BIN)/python tests/replayed_studies.py --store $(STORE)

# What surprises about the libraries, each run by itself with the versions that it names: it needs the internet.
findings:
	@changed=; for file in findings/*.sh; do \
	  echo "== $$file"; PYTHON=$(PYTHON) bash "$$file" || changed="$$changed $$file"; done; \
	  test -z "$$changed" || { echo "no longer as written:$$changed"; exit 1; }

# Ten minutes, best on an idle machine: a seed-step against the loop of the field, bookkeeping of many runs.
bench: setup
	$(BIN)/python benchmarks/seed_step.py --device cpu
	$(BIN)/python benchmarks/seed_step.py --device cpu --size digits
	$(BIN)/python benchmarks/bookkeeping.py

# The same seed-steps on a GPU. Needs torch, numpy and pyarrow alone, in the Python that PYTHON names.
bench-gpu:
	PYTHONPATH=. $(PYTHON) benchmarks/seed_step.py --device cuda
	PYTHONPATH=. $(PYTHON) benchmarks/seed_step.py --device cuda --size digits

# Hours: the search that chose split, networks and epochs of the digits recipe (benchmarks/digits_recipe.md).
digits-recipe: setup
	$(BIN)/python benchmarks/digits_recipe.py

# The stamp is written last: an interrupted set-up is done again.
$(STAMP): requirements.lock build.lock pyproject.toml $(BIN)/uv
	@$(if $(filter cpu,$(TORCH)),$(BIN)/python deploy/cpu_lock.py $(BIN)/uv requirements.lock $(LOCKED) $(TORCH_INDEX))
	@echo "Installing the packages into .venv: $(SIZE), minutes on a fast network"
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes $(INDEX) $(LOCKED)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --build-constraints build.lock --editable .
	$(BIN)/python -m compileall -q hkrun
	$(BIN)/python -c 'from hkrun.models.small_blocks import compile_ahead; compile_ahead()'
	rm -f .venv/.synced .venv/.synced-cpu
	@echo "hkrun is set up: $(BIN)/hkrun --help"
	touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "hkrun needs Python 3.11 or newer, and $(PYTHON) is `$(PYTHON) --version 2>&1 || true`."; \
	  echo "Install one and name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
