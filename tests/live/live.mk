# Real crashed processes as fixtures: see tests/live/README.md. Included by the top Makefile.
LIVE = .live

.PHONY: test-live agreement

# Builds, crashes, captures, forges, runs the plugins, compares; then shows that the comparison notices broken rules.
test-live: $(VENV)/.tools
	$(BIN)/python -m tests.live all --work $(LIVE)
	THROWSTACK_LIVE=$(LIVE) $(BIN)/python -m pytest tests/live

# docs/agreement.md, from the fixtures that `make test-live` made.
agreement: $(VENV)/.tools
	$(PIP) '.[peers]'
	$(BIN)/python -m tests.live.agreement --work $(LIVE)
