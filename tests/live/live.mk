# Real crashed processes as fixtures: see tests/live/README.md. Included by the top Makefile.
LIVE = .live

.PHONY: test-live agreement

# Builds, crashes, captures, forges, runs the plugins, compares; then the same with two .NET programs a runtime (all of
# them: `make test-managed`); then shows that the comparison notices broken rules.
# Where Wine cannot be installed this fails, unless SKIP_LIVE=1 says that a run without live tests is meant.
ifeq ($(SKIP_LIVE),1)
test-live:
	@echo '*** LIVE TESTS SKIPPED: SKIP_LIVE=1. No crashed process was made, nothing was compared with one. ***'
else
test-live: $(VENV)/.tools
	$(BIN)/python -m tests.live all --work $(LIVE)
	$(BIN)/python -m tests.managed_live all --quick --work $(LIVE)
	THROWSTACK_LIVE=$(LIVE) $(BIN)/python -m pytest tests/live
endif

# docs/agreement.md, from the fixtures that `make test-live` made.
agreement: $(VENV)/.tools
	$(PIP) '.[peers]'
	$(BIN)/python -m tests.live.agreement --work $(LIVE)
