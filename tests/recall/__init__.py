# SPDX-License-Identifier: Apache-2.0
"""Recall under loss: what is left of each stuck thread's row when one thing is missing (`make recall`).

A dump is opened once. Each loss is laid over the memory of one process (`overlay`), and that process is surveyed again,
in this Python process. `losses` makes the list of losses, `measure` runs them and judges, `table` sums up.

The modules `managed_…` do so with pages of captured .NET processes (`make recall-managed`). There the report is judged
(`managed_facts`): each name, class and message of managed code has to be as it was, or missing with a reason.
"""
