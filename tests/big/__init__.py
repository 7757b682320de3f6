# SPDX-License-Identifier: Apache-2.0
"""What only large dumps show: speed and memory. `make test-big`; the dumps are sparse files, made in seconds."""
