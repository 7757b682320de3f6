# SPDX-License-Identifier: Apache-2.0
"""Whole dumps: what the plugins answer, compared with the truth that each dump came with."""
