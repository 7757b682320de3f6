# SPDX-License-Identifier: Apache-2.0
"""Other tools on the same dumps. None of them is needed: `pip install '.[peers]'` brings them."""
