# SPDX-License-Identifier: Apache-2.0
"""Opening an image with Volatility: its layers, its symbols, and the files given beside it."""
