# SPDX-License-Identifier: Apache-2.0
"""The report on a dump as text, for a person: values in, lines out. Nothing is read here.

Addresses and stacks are spelled as WinDbg spells them. `report_text` makes the whole text of its parts; each part has a
module.
"""
