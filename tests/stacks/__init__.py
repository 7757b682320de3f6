# SPDX-License-Identifier: Apache-2.0
"""Published stacks of hung and crashed threads, and what must come of each. CONTRIBUTING says how to add one."""
