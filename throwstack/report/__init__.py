# SPDX-License-Identifier: Apache-2.0
"""Reports on crashes, threads and dumps, as plain values."""
