# SPDX-License-Identifier: Apache-2.0
"""The memory of the machine and of its processes, as Volatility's layers and the ISF tables give it."""
