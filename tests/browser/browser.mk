# Pages of reports in a real browser. Included by the top Makefile.

.PHONY: test-browser

# Where chromium cannot be installed this fails, unless SKIP_BROWSER=1 says that a run without it is meant.
ifeq ($(SKIP_BROWSER),1)
test-browser:
	@echo '*** BROWSER TESTS SKIPPED: SKIP_BROWSER=1. No page was opened. ***'
else
test-browser: $(VENV)/.tools
	$(PIP) '.[browser]'
	$(BIN)/python -m tests.browser
	$(BIN)/python -m pytest tests/browser
endif
