# SPDX-License-Identifier: Apache-2.0
"""The memory of the machine and of its processes, read through Volatility's layers and ISF tables."""
