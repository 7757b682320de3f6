# SPDX-License-Identifier: Apache-2.0
"""Changes figures and conditions of the unwinders and the dispatch search, one at a time: does a test notice?

`mutate` finds the changes that can be made to a module. `lines` finds the tests that run each line. `trials` makes one
change at a time, `in_place`, in a process of its own, and runs the tests of its line. `run` keeps what came of it in
`build/mutants/`: what a test noticed is not tried again while the module is the same. `equivalent.txt` lists the
changes that change nothing, each with the reason.

    python -m tests.mutants --jobs 2                     # all of them
    python -m tests.mutants x86 --sample 100 --seed 1    # 100 of the x86 unwinder
    python -m tests.mutants x86 --only candidates.py     # those of one module
"""
