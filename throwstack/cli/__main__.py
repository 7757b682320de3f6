# SPDX-License-Identifier: Apache-2.0
"""`python -m throwstack.cli` is the command `throwstack`."""

from __future__ import annotations

import sys

from throwstack.cli.main import main

sys.exit(main())
