# SPDX-License-Identifier: Apache-2.0
"""Attacks on everything that reads a dump or what comes with one: `python -m tests.fuzz`, `make fuzz`."""
