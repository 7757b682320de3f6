# SPDX-License-Identifier: Apache-2.0
"""Finds stuck threads: which ones wait after an exception that nobody handled, on what, and which crashes are the same.

- `triage`: the entry point. It asks a cheap question for each thread and walks the few for which the answer is yes.
- `stuck_thread`: the result.
- `return_words`, `missing_names`: what triage does where a walk ends early, or where names are missing.
- `error_box`: the text of the message box that a thread shows.
- `cause`: of several exceptions in flight, the one that the others are the end of.
- `locks`, `wait_cycles`: which lock a thread waits for, and deadlocks.
- `signature`, `frame_roles`: a text that is the same for crashes that are the same, by the rules in `data/`.
"""
