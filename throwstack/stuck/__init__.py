# SPDX-License-Identifier: Apache-2.0
"""Finds stuck threads: which ones wait after an exception that nobody handled, on what, and which crashes are the same.

- `triage`: the entry point. It asks a cheap question for each thread and walks the few for which the answer is yes.
- `stuck_thread`: the result. `dispatch_state`: who has not come back, if an exception is still being dispatched.
- `suspects`: the cheap question. `walk_evidence`: what a walk shows.
- `beyond_walk`, `return_words`: what triage does where a walk ends early or goes on with a guess.
- `missing_names`: where names are missing, so that triage may miss a thread.
- `error_box`: the text of the message box that a thread shows.
- `locks`, `wait_cycles`: which lock a thread waits for, and deadlocks.
- `signature`: a text that is the same for crashes that are the same.
"""
