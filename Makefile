# Everything sets itself up: a fresh Debian or Ubuntu needs make and network access, no more.
VENV   := .venv
PYTHON := /usr/bin/python3
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# bcc is in no Python registry (PyPI's "bcc" is another project); the rest is for lab and tests.
PACKAGES := python3-bpfcc python3-venv iproute2 nftables tcpdump
# Forgers and boxes as they are in the field, for the lab of `make test` and `make accuracy`.
PROGRAMS := dsniff hping3 haproxy iptables conntrack traceroute mtr-tiny strace tmux
# Its service would speak LLDP on your network from the next boot on: only on CI's machine.
PROGRAMS += $(if $(CI),lldpd)
# A unit test compiles the baseline of bpf/ for user space, to hold it against the captures'.
# Who watches a run, as they are in the field, for `make watch`.
WATCHERS := prometheus systemd
COMPILER := gcc libc6-dev
PACKAGER := debhelper dh-python lowdown
CONTAINERS := umoci runc lintian
EMULATOR := qemu-system-x86 mmdebstrap e2fsprogs

.PHONY: demo test unit lint watch runbooks bench accuracy kernels kernels-build kernels-doc browser screenshots
.PHONY: fuzz soak fleet deb wheel zipapp image lock audit packages-test vagrant-validate clean

demo: $(VENV)/installed ## real verdicts on a live lab
	$(SUDO) $(VENV)/bin/rsttrace demo

test: $(VENV)/installed-dev $(VENV)/programs ## unit tests, and the lab on the running kernel (root); FULL=1: the slow ones too; T=: these alone
	$(SUDO) env CI="$$CI" RSTTRACE_PCAPS="$$RSTTRACE_PCAPS" \
	  $(VENV)/bin/python -m pytest $(if $(FULL),,-m "not slow") $(T)

unit: $(VENV)/installed-dev ## the tests that need neither root nor a kernel
	$(VENV)/bin/python -m pytest tests/unit

lint: $(VENV)/installed-dev ## ruff and mypy, as CI runs them
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

watch: $(VENV)/installed-dev $(VENV)/programs $(VENV)/watchers ## metrics and alerts in Debian's Prometheus, entries in a journald, the service in a systemd (root)
	$(SUDO) env CI="$$CI" $(VENV)/bin/python -m pytest tests/watch

runbooks: $(VENV)/installed-dev $(VENV)/programs ## every command of docs/runbooks/, in a lab where that fault is (root)
	$(SUDO) env CI="$$CI" $(VENV)/bin/python -m pytest tests/runbooks

bench: $(VENV)/installed-dev ## what tracing costs, beside other tools: docs/performance.md, of this machine (root)
	@$(call install,bpftrace)
	@$(call locked,bench)
	$(SUDO) $(VENV)/bin/python -m tests.bench

accuracy: $(VENV)/installed-dev $(VENV)/programs ## verdicts against the truth: A=--live, A="--captures --pcaps DIR", A=--help
	$(SUDO) env CI="$$CI" RSTTRACE_PCAPS="$$RSTTRACE_PCAPS" \
	  $(VENV)/bin/python -m tests.accuracy $(A)

fuzz: $(VENV)/installed-dev ## what reads others' bytes, fuzzed: S=300 seconds for all, F=captures for one
	@$(call locked,fuzz)
	$(VENV)/bin/python -m tests.fuzz $(if $(S),--seconds $(S)) $(addprefix --target ,$(F))

# In a guest: make kernels K=6.12 P=kprobes T=tests/lab/test_soak.py, for five minutes.
soak: $(VENV)/installed-dev $(VENV)/programs ## resets of every kind against tcpdump and the kernel's counters, for an hour (root); M=5 for five minutes
	$(SUDO) $(VENV)/bin/python -m tests.soak $(if $(M),--minutes $(M))

kernels: $(VENV)/installed-dev $(VENV)/emulator ## other kernels in QEMU: K=6.1 for one, FULL=1 for all lab tests (hours), T= and P=kprobes for some, V=smp4 for a variant
	$(SUDO) $(VENV)/bin/python tests/kernels/run.py \
	  $(addprefix --kernel ,$(K)) $(if $(FULL),--full) $(if $(T),--tests '$(T)') $(addprefix --plan ,$(P)) $(if $(V),--variant $(V))

kernels-build: $(VENV)/installed-dev $(VENV)/emulator ## build what `make kernels` boots, and no more
	$(SUDO) $(VENV)/bin/python tests/kernels/run.py --build-only $(addprefix --kernel ,$(K))

kernels-doc: $(VENV)/installed-dev ## docs/kernels.md, from the last run of all kernels
	$(SUDO) $(VENV)/bin/python -m tests.kernels.document

browser: $(VENV)/installed-dev ## the HTML report in a real browser (headless Chromium)
	@$(call install,chromium fonts-dejavu-core)
	$(VENV)/bin/python -m pytest tests/browser

fleet: $(VENV)/installed-dev ## many nodes' logs in ClickHouse (chDB: about 830 MB to install), and a fleet in the lab (root)
	@$(call locked,fleet)
	$(SUDO) env CI="$$CI" $(VENV)/bin/python -m pytest tests/fleet

screenshots: $(VENV)/installed-dev ## the pictures of README and docs, made anew
	@$(call install,chromium fonts-dejavu-core)
	$(VENV)/bin/python -m tests.browser.screenshots

deb: $(VENV)/installed-build $(VENV)/packager ## dist/rsttrace_VERSION_all.deb, for Debian 11 to 13 and Ubuntu 22.04 and 24.04
	$(VENV)/bin/python -m packages.deb

wheel: $(VENV)/installed-build ## dist/rsttrace-VERSION-py3-none-any.whl
	$(VENV)/bin/python -m packages.wheel

zipapp: $(VENV)/installed-build ## dist/rsttrace.pyz, one file for a node's python3 and bcc
	$(VENV)/bin/python -m packages.onefile

image: $(VENV)/installed-build $(VENV)/packager $(VENV)/emulator ## dist/rsttrace_VERSION_ARCHITECTURE.oci.tar, an OCI image
	@$(call install,umoci)
	$(SUDO) $(VENV)/bin/python -m packages.image

lock: $(VENV)/installed-dev ## requirements/*.lock, from pyproject.toml's ranges; UPGRADE=1: the newest versions
	$(VENV)/bin/python -m packages.lock $(if $(UPGRADE),--upgrade)

audit: $(VENV)/installed-dev ## known faults of what the locks name, as the Python registry tells them; what it does not tell is a failure, too
	@$(call locked,audit)
	@code=0; for lock in requirements/*.lock; do echo "$$lock:"; \
	  $(VENV)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r $$lock || code=1; \
	done; exit $$code

packages-test: $(VENV)/installed-packages $(VENV)/emulator ## what is built is installed in fresh Debians, and used there (root, minutes); T=tests/packages/test_deb.py
	$(SUDO) $(VENV)/bin/python -m pytest $(or $(T),tests/packages)

vagrant-validate: ## the Vagrantfile is well formed (no machine is started)
	@$(call install,vagrant)
	cd vagrant && VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DOTFILE_PATH="$$(mktemp -d)" \
	  vagrant validate --ignore-provider

clean: ## forget what was set up here
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# Debian packages, those of them that are missing. RUNLEVEL=1: their services are not started
# (invoke-rc.d(8)).
define install
missing=; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
if [ -n "$$missing" ]; then \
  echo "installing:$$missing"; \
  $(SUDO) apt-get update -q && \
  $(SUDO) env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qy --no-install-recommends $$missing; \
fi
endef

# Exactly what a lock names, file by file; then ours, which is built with what was just installed. Compiled, as
# pip does with what it copies: a trace is nobody when it imports half of it, and cannot keep what it compiles.
define locked
$(VENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/$(1).lock && \
$(VENV)/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . && \
$(VENV)/bin/python -m compileall -q rsttrace
endef

# The distribution's Python, because bcc is built for it.
$(VENV)/created:
	@$(call install,$(PACKAGES))
	$(PYTHON) -m venv --clear --system-site-packages $(VENV)
	@touch $@

$(VENV)/emulator: $(VENV)/created
	@$(call install,$(EMULATOR))
	@touch $@

$(VENV)/packager: $(VENV)/created
	@$(call install,$(PACKAGER))
	@touch $@

$(VENV)/installed-packages: $(VENV)/installed-dev $(VENV)/packager requirements/packages.lock
	@$(call install,$(CONTAINERS))
	@$(call locked,packages)
	@touch $@

$(VENV)/programs: $(VENV)/created
	@$(call install,$(PROGRAMS))
	@touch $@

$(VENV)/watchers: $(VENV)/created
	@$(call install,$(WATCHERS))
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml requirements/run.lock
	@$(call locked,run)
	@touch $@

$(VENV)/installed-build: $(VENV)/installed requirements/build.lock
	@$(call locked,build)
	@touch $@

$(VENV)/installed-dev: $(VENV)/created pyproject.toml requirements/dev.lock
	@$(call install,$(COMPILER))
	@$(call locked,dev)
	@touch $@ $(VENV)/installed
