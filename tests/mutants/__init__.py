# SPDX-License-Identifier: Apache-2.0
"""Changes figures and conditions of the unwinders and the dispatch search, one at a time: does a test notice?

`mutate` finds the changes that can be made to a module. `lines` finds the tests that run each line. `run` makes one
change at a time in a process of its own and runs the tests of its line. `equivalent.txt` lists the changes that change
nothing, each with the reason.

    python -m tests.mutants                              # all, which takes hours
    python -m tests.mutants x86 --sample 100 --seed 1    # 100 of the x86 unwinder
    python -m tests.mutants x86 --only candidates.py     # those of one module
"""
