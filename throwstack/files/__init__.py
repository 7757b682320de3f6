# SPDX-License-Identifier: Apache-2.0
"""Finds the PDBs and image files that a dump refers to, along symbol and image paths. Downloads them if allowed."""
