# SPDX-License-Identifier: Apache-2.0
"""Which threads are stuck, in what, and which crashes are the same."""
