# SPDX-License-Identifier: Apache-2.0
"""Tests of the page over all dumps of a scan."""
