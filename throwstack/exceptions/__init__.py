# SPDX-License-Identifier: Apache-2.0
"""Exceptions: reading the record, and saying in words what was thrown."""
