# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that no linter knows: `make lint` runs these tests."""
