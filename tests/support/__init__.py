# SPDX-License-Identifier: Apache-2.0
"""What tests of several rooms share: builders of files and memory, runs of `vol`, opened dumps."""
