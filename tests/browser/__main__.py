# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.browser`: installs the browser where it is absent."""

from __future__ import annotations

from tests.browser.browser_setup import install_packages

if __name__ == "__main__":
    install_packages()
