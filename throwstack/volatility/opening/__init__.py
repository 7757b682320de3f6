# SPDX-License-Identifier: Apache-2.0
"""Opens an image with Volatility: its layers, its symbols, and the files that were given with it."""
