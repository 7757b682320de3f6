# SPDX-License-Identifier: Apache-2.0
"""PDBs and image files that a dump refers to: searched along symbol and image paths, downloaded if that is allowed."""
