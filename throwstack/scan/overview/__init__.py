# SPDX-License-Identifier: Apache-2.0
"""The page over all dumps of a scan, `index.html`.

crash_groups     the crashes by signature, as the values that the page shows; bounded, whatever the number of dumps
overview_page    the page: those values in a template, which extends that of reports
templates/       HTML, style, and the script that filters, sorts and unfolds
"""
