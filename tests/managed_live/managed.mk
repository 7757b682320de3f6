# Real .NET processes, crashed: see tests/managed_live/README.md. Included by the top Makefile, after tests/live/live.mk.

.PHONY: test-managed recall-managed

# Every program on every runtime, and the table of docs/agreement.md. ONLY="8.0-x64 task" makes those whose name has it.
# FEWER_RUNTIMES=1 says that fewer than three runtimes are meant.
ifeq ($(SKIP_LIVE),1)
test-managed:
	@echo '*** MANAGED TESTS SKIPPED: SKIP_LIVE=1. No .NET process was crashed, nothing was compared with one. ***'
else
test-managed: $(VENV)/.tools
	$(BIN)/python -m tests.managed_live all --work $(LIVE) $(if $(ONLY),--only $(ONLY))
	$(if $(ONLY),,$(BIN)/python -m tests.managed_live table --work $(LIVE))
	$(if $(ONLY),,$(BIN)/python -m tests.recall --managed $(LIVE)/managed --most 2)
endif

# One page lost at a time, of a process of each kind on each runtime that `make test-managed` has made: the table of
# docs/agreement.md. Prints what is silent, another fact or a lost row, and fails if anything is.
recall-managed: $(VENV)/.tools
	$(BIN)/python -m tests.recall --managed $(LIVE)/managed --out docs/agreement.md $(RECALL)
