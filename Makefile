# Every command runs in .venv, which the first one makes: only Python 3.10+ and make have to be there.

# The Python that .venv is made with.
PYTHON ?= python3
# What to install as PyTorch: any words that `pip install` takes. On Linux the default brings the CUDA build; for the
# much smaller CPU build pass the words that the start page of PyTorch's site shows, for example
#   make demo TORCH="torch==2.13.0 --index-url ADDRESS"
# Read once, when .venv is made: `make clean` before another choice.
TORCH ?= torch==2.13.0
# The same for what needs torchvision too, whose release has to be the one that goes with torch's: a pair that has wheels
# for the processor.
PAPER_TORCH ?= $(if $(filter aarch64 arm64,$(shell uname -m)),torch==2.9.1 torchvision==0.24.1,torch==2.14.1 torchvision==0.29.1)
# Options of the demo or of the benchmarks, for example ARGS="--help".
ARGS ?=

# How many trainings of `make smoke`, or tests, run at a time, each with one thread.
JOBS ?= 2

# What `make smoke` trains, the longest first: each of them is a target of its own.
SMOKE := smoke/smmd_celeba smoke/smmd_imagenet smoke/smmd_cifar10 smoke/dcgan
# The methods of Arbel et al. that it trains: all, or those named, for example METHODS="smmd sn-smmd".
METHODS ?=

VENV := .venv
IN := $(VENV)/bin/python
# torch is installed first and then held: an install that would replace it fails instead.
INSTALL := $(IN) -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/torch.txt

# glibc would give large tensors back to the system and ask for them anew, page by page, which takes up to a third of the
# time of a training.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4294967296
# One thread each, NumPy's included, since there are as many workers as cores. Compiled modules are kept, also where Python
# is told not to: otherwise each worker, and each process that a test starts, compiles them anew.
TESTING := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(KEEP_MEMORY)
IN_PARALLEL := --numprocesses $(JOBS) --dist loadgroup
# What these need for other purposes would replace NumPy or bring a gigabyte; their MMD runs without it.
BARE_PEERS := alibi-detect==0.13.0 pytorch-adapt==0.0.83 pytorch-ignite==0.5.5 sbi==0.27.0 torchdrift==0.1.0.post1

# Leaves out the tests of the scripts in examples/ and of programs of the shape of other people's.
OF_PACKAGE := --ignore=tests/examples --ignore=tests/foreign

.PHONY: help demo one-step benchmarks smoke $(SMOKE) test test-quick paper-test lint docs docs-browser wheel-test install-test \
	environment after-test clean
.DELETE_ON_ERROR:

help:
	@echo "make demo        train a small MMD-GAN on digits and draw samples (options: ARGS=...)"
	@echo "make one-step    train a generator without a discriminator on Fashion-MNIST (options: ARGS=...)"
	@echo "make benchmarks  measure everything on docs/benchmarks.md anew; takes half an hour (options: ARGS=...)"
	@echo "make smoke       20 iterations of all presets with their real networks, on generated images; JOBS=2 at a time"
	@echo "make test        style, types, tests, examples of the documentation, coverage"
	@echo "make test-quick  the package's tests alone, without the slow ones and with few random examples each"
	@echo "make paper-test  tests that need torchvision, a CUDA build of PyTorch (no GPU) or other libraries, in an environment of their own"
	@echo "make lint        style, types and the direction of imports only"
	@echo "make docs        build docs/_build/html, run the examples of its gallery, and check the pages"
	@echo "make docs-browser  build it, and look at it in Chromium without a network, at two widths, light and dark"
	@echo "make wheel-test  build the wheel, compare it with the package, install it, and run the examples of its docstrings"
	@echo "make install-test  the same installation on the oldest and the newest Python at hand"
	@echo "make clean       remove .venv and everything built"

demo: $(VENV)/examples.done
	$(IN) examples/demo.py $(ARGS)

# Reading the data takes torchvision.
one-step: .venv-paper/done
	$(KEEP_MEMORY) .venv-paper/bin/python examples/one_step_fashion_mnist.py $(ARGS)

benchmarks: $(VENV)/benchmarks.done
	$(IN) examples/benchmarks/run_all.py $(ARGS)

smoke:
	@$(MAKE) --no-print-directory --keep-going --jobs $(JOBS) $(SMOKE)

# One thread each, since two runs at a time take less than one after the other with two threads.
$(SMOKE): smoke/%: $(VENV)/examples.done
	@OMP_NUM_THREADS=1 $(KEEP_MEMORY) $(IN) .ci/rehearse $* $(METHODS)

# The data of the coverage are in a folder of their own, since two runs in one checkout would take each other's.
test: lint
	@data=$$(mktemp -d); trap 'rm -rf "$$data"' EXIT; \
	COVERAGE_FILE="$$data/coverage" $(TESTING) $(IN) -m pytest $(IN_PARALLEL) --cov --cov-report=term

test-quick: $(VENV)/dev.done
	$(TESTING) $(IN) -m pytest $(IN_PARALLEL) $(OF_PACKAGE) -m "not slow" --hypothesis-profile quick

# An environment of its own, so that all other tests run without these packages.
paper-test:
	@$(MAKE) --no-print-directory .venv-paper/done
	$(TESTING) .venv-paper/bin/python -m pytest -m paper tests

lint: $(VENV)/dev.done
	$(IN) -m ruff check .
	$(IN) -m ruff format --check .
	$(IN) -m mypy
	$(VENV)/bin/lint-imports --no-cache

# The examples of the gallery run with one thread, as their times are given for one core. Pages of objects that are gone
# would stay, so they are made anew.
docs: $(VENV)/dev.done $(VENV)/docs.done
	rm -rf docs/api
	OMP_NUM_THREADS=1 $(IN) -m sphinx -W --keep-going -b html docs docs/_build/html
	$(IN) docs/check_site.py docs/_build/html
	$(IN) -m pytest -q tests/site
	@echo "open docs/_build/html/index.html"

# The documentation as a reader sees it without a network. Needs Chromium (Debian: chromium).
docs-browser: $(VENV)/browser.done
	@$(MAKE) --no-print-directory docs
	$(IN) docs/check_in_browser.py docs/_build/html

# The wheel holds the files that `make test` has tested, installs, and its examples run away from this directory.
wheel-test: $(VENV)/dev.done
	rm -rf dist
	$(IN) -m build --outdir dist .
	$(IN) -m twine check --strict dist/*
	$(IN) .ci/check-wheel dist/*.whl
	TORCH="$(TORCH)" .ci/install-test dist/*.whl "$$(command -v $(PYTHON))"

# The same wheel on the oldest and the newest Python at hand.
install-test:
	TORCH="$(TORCH)" .ci/install-test dist/*.whl

# What .ci/run checks after `make test`, the longest first. Most of it needs one core: with --jobs 2 it fills two. An
# installation in .venv would take the package from the scripts that run at the same time, so `make environment` comes first.
after-test: paper-test docs-browser wheel-test demo $(SMOKE)

environment: $(VENV)/browser.done

clean:
	rm -rf $(VENV) .venv-paper build dist docs/_build docs/api docs/auto_gallery docs/backreferences .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Set-up. A finished step leaves a file; a changed pyproject.toml repeats the steps that read it. Of those in .venv, one
# waits for the other, also with --jobs 2.

$(VENV)/torch.txt:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "'$(PYTHON)' is not Python 3.10 or newer. Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "'$(PYTHON)' lacks ensurepip, so it cannot make a virtual environment. On Debian and Ubuntu:"; \
		echo "    apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(IN) -m pip install --disable-pip-version-check $(TORCH)
	@$(IN) -c "from importlib.metadata import version; print('torch==' + version('torch'))" > $@

$(VENV)/examples.done: $(VENV)/torch.txt pyproject.toml
	$(INSTALL) --editable ".[examples]"
	@touch $@

$(VENV)/dev.done: $(VENV)/torch.txt pyproject.toml
	$(INSTALL) --editable ".[dev,examples]"
	@touch $(VENV)/examples.done $@

.venv-paper/done: pyproject.toml
	$(PYTHON) -m venv --clear .venv-paper
	.venv-paper/bin/python -m pip install --quiet --disable-pip-version-check $(PAPER_TORCH)
	@.venv-paper/bin/python -m pip freeze | grep -E '^torch(vision)?==' > .venv-paper/torch.txt
	.venv-paper/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-paper/torch.txt \
		--editable ".[dev,examples,paper,peers,foreign]"
	.venv-paper/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(BARE_PEERS)
	@touch $@

$(VENV)/benchmarks.done: $(VENV)/torch.txt pyproject.toml
	$(INSTALL) --editable ".[benchmarks]"
	$(INSTALL) --no-deps $(BARE_PEERS)
	@touch $@

$(VENV)/docs.done: $(VENV)/torch.txt pyproject.toml | $(VENV)/dev.done
	$(INSTALL) --editable ".[docs]"
	@touch $@

$(VENV)/browser.done: $(VENV)/torch.txt pyproject.toml | $(VENV)/docs.done
	$(INSTALL) --editable ".[browser]"
	@touch $@
