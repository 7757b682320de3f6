# SPDX-License-Identifier: Apache-2.0
"""Everything that the commands print on forged dumps and live captures, as files to compare between two commits."""
