# SPDX-License-Identifier: Apache-2.0
"""The command `throwstack doctor`: says what a file is, how complete it is, and what is needed to examine it."""
