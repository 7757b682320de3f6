# SPDX-License-Identifier: Apache-2.0
"""Pages of reports, opened in a real browser: Debian's chromium, without a window."""
