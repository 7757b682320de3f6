# SPDX-License-Identifier: Apache-2.0
"""What a file is, how complete it is, and what it takes to examine it: the command `throwstack doctor`."""
