# SPDX-License-Identifier: Apache-2.0
"""Recall under loss: what is left of each stuck thread's row when one thing is missing (`make recall`).

A dump is opened once. Each loss is laid over the memory of one process (`overlay`), and that process is surveyed again,
in this Python process. `losses` makes the list of losses, `measure` runs them and judges, `table` sums up.
"""
