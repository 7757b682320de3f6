# SPDX-License-Identifier: Apache-2.0
"""Tests of scans of many dumps."""
