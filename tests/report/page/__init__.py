# SPDX-License-Identifier: Apache-2.0
"""Tests of `throwstack.report.page`; tests/browser opens its pages."""
