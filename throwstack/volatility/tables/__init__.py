# SPDX-License-Identifier: Apache-2.0
"""The tables that the plugins print. Each column has a title, a type and a value; each row is made from a report.

To add a column, add a line to the table of its plugin: `crash_table`, `frame_table` or `thread_table`.
"""
