# SPDX-License-Identifier: Apache-2.0
"""What there is to say of a crash."""
