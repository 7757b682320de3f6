# SPDX-License-Identifier: Apache-2.0
"""Minidumps opened by LLDB, Breakpad, rust-minidump, symbolic, and the packages minidump and udmp-parser.

    python -m tests.minidump_peers WORK [FOLDER …] [--forged]     (`make test-minidumps`)

Each FOLDER has MEMORY.DMP and isf/, as the forge and `make test-live` leave them, or a capture of a .NET process that
`make test-managed` has made. With `--forged` cases of the forge are made and looked at as well.
"""
