# SPDX-License-Identifier: Apache-2.0
"""Builds whole Windows crash dumps, with the truth about them, for the tests and the demo."""
