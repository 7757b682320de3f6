# SPDX-License-Identifier: Apache-2.0
"""The tables that the plugins print. Their columns have a title, a type and a value; their rows are made from reports.

A new column is a line in the table of its plugin: `crash_table`, `frame_table` or `thread_table`.
"""
