# SPDX-License-Identifier: Apache-2.0
"""Unwinding: one package per architecture."""
