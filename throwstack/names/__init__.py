# SPDX-License-Identifier: Apache-2.0
"""Names for addresses: symbol tables, demangled names, names of frames, and the functions that block a thread."""
