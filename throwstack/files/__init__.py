# SPDX-License-Identifier: Apache-2.0
"""Files that a dump refers to: found along symbol and image paths, by identity; fetched where that is allowed."""
