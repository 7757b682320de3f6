# SPDX-License-Identifier: Apache-2.0
"""Windows crash dump files: their kinds, their header, and where in the file each physical page lies."""
