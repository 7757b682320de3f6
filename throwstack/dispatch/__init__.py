# SPDX-License-Identifier: Apache-2.0
"""Finding the CONTEXT that Windows saved when it dispatched an exception: one module per architecture."""
