# SPDX-License-Identifier: Apache-2.0
"""PE images in the memory of a process: headers, sections, exports, and the list of modules they belong to."""
