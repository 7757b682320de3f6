# SPDX-License-Identifier: Apache-2.0
"""The tables that the plugins print: columns of (title, type, what is in it), and rows made of reports.

A new column is a line in the table of its plugin: `crash_table`, `frame_table` or `thread_table`.
"""
