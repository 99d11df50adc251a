# Everything sets itself up: a fresh Debian or Ubuntu needs make and network access, no more.
VENV   := .venv
PYTHON := /usr/bin/python3
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# bcc is in no Python registry (PyPI's "bcc" is another project); the rest is for lab and tests.
PACKAGES := python3-bpfcc python3-venv iproute2 nftables tcpdump

.PHONY: demo test unit lint bench accuracy kernels clean

demo: $(VENV)/installed ## real verdicts on a live lab
	$(SUDO) $(VENV)/bin/rsttrace demo

test: $(VENV)/installed-dev ## all tests: unit, and lab on the running kernel (root)
	$(SUDO) env CI="$$CI" $(VENV)/bin/python -m pytest

unit: $(VENV)/installed-dev ## the tests that need neither root nor a kernel
	$(VENV)/bin/python -m pytest tests/unit

lint: $(VENV)/installed-dev ## ruff and mypy, as CI runs them
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/installed-dev ## what tracing costs, as ratios measured side by side
	$(SUDO) $(VENV)/bin/python -m tests.bench

accuracy: $(VENV)/installed-dev ## verdicts against the truth: A=--live, A=--captures, A=--help
	$(SUDO) env CI="$$CI" $(VENV)/bin/python -m tests.accuracy $(A)

kernels: $(VENV)/installed-dev ## other kernels in QEMU: K=6.1 for one, FULL=1 for the lab tests
	@for p in qemu-system-x86 mmdebstrap e2fsprogs; do dpkg -s $$p >/dev/null 2>&1 || \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$p; done
	$(SUDO) $(VENV)/bin/python tests/kernels/run.py $(if $(K),--kernel $(K)) $(if $(FULL),--full)

clean: ## forget what was set up here
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

# The distribution's Python, because bcc is built for it.
$(VENV)/created:
	@missing=; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing:$$missing"; \
	  $(SUDO) apt-get update -q && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; \
	fi
	$(PYTHON) -m venv --clear --system-site-packages $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml
	$(VENV)/bin/pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/created pyproject.toml
	$(VENV)/bin/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/installed
