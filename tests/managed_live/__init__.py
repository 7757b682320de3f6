# SPDX-License-Identifier: Apache-2.0
"""Crashes real .NET processes under Wine, and compares what is said of them with the runtime's own console text."""
