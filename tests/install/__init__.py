# SPDX-License-Identifier: Apache-2.0
"""Every kind of installation, each from the built wheel in a fresh environment: `make test-install`."""
