# SPDX-License-Identifier: Apache-2.0
"""Tests of pages that page tables do not map."""
