# SPDX-License-Identifier: Apache-2.0
"""Reports as HTML pages. Each page is one file that fetches nothing, works without JavaScript, and can be printed.

From a report to a page: `report_page` (all of it), `crash_section` (one stuck thread), `stack_table` (a stack as rows
and as text), `stack_picture` (a stack as a picture, with `stack_extents`, `address_scale` and `picture_labels`),
`page_templates` (templates to HTML, with the content security policy).
"""
