# SPDX-License-Identifier: Apache-2.0
"""Programs that crash for real under Wine, captured while they wait and wrapped into dumps: the measuring rod."""
