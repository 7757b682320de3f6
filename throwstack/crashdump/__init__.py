# SPDX-License-Identifier: Apache-2.0
"""Windows crash dump files: their kinds, their header, and the position of each physical page in the file."""
