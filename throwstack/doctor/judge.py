# SPDX-License-Identifier: Apache-2.0
"""Decides how well a dump serves `windows.unhandled`, after its processes were examined, and what to do next."""

from __future__ import annotations

from throwstack.crashdump.file_advice import FULL_DUMP
from throwstack.doctor.doctor_report import DoctorReport, DoctorVerdict
from throwstack.pages.page_origin import PageOrigin
from throwstack.pages.process_coverage import readable, total

_ENOUGH = 0.95
"""The proportion of stack pages that has to be readable for the verdict that the dump serves."""
_LEFT_OUT = {PageOrigin.NOT_IN_DUMP, PageOrigin.TABLE_NOT_IN_DUMP}
"""Reasons for absent pages that would not apply to a dump of another kind."""
_OF_KERNEL_DUMPS = {*_LEFT_OUT, PageOrigin.IN_FILE}
"""Reasons for which pages of processes are absent in a kernel dump; some of the pages were not in memory at all."""


def judge(report: DoctorReport) -> None:
    """Set the verdict of `report`, and add problems and advice, from the findings about the processes."""
    missing = total(process.stacks for process in report.processes)
    have, of = readable(missing)
    if not have:
        problem, is_kernel = "no process can be examined", False
        # Where no TEB is readable no stacks are known, and only the images show why.
        reasons = {*missing, *total(process.images for process in report.processes)}
        if report.processes:
            is_kernel = not report.is_cut_off and reasons <= _OF_KERNEL_DUMPS
            problem = (
                "no page of a thread's user-mode stack is in it" + ": it holds the kernel's memory alone" * is_kernel
            )
        report.problems.append(problem)
        judge_extent(report)
        _advise_on_pages(report)
        if not report.is_cut_off and (is_kernel or not report.processes or reasons & _LEFT_OUT):
            report.advice.append(FULL_DUMP)
        return
    report.verdict = DoctorVerdict.SERVES
    if have < of * _ENOUGH:
        report.verdict = DoctorVerdict.IN_PART
        report.problems.append(f"{1 - have / of:.1%} of the stack pages are missing")
    nameless = sum(bool(process.nameless) for process in report.processes)
    if nameless:
        report.verdict = DoctorVerdict.IN_PART
        of_all = f"{nameless} of {len(report.processes)}"
        report.problems.append(f"in {of_all} processes the functions in which stuck threads wait have no names")
    judge_extent(report)
    _advise_on_pages(report)
    report.advice.append(f"run {report.commands.vol('windows.unhandled')}, then windows.cxrstack")


def judge_extent(report: DoctorReport) -> None:
    """If a dump is cut off, add that problem, and lower the verdict "serves" to "serves in part"."""
    if report.extent is not None and report.is_cut_off:
        if report.verdict is DoctorVerdict.SERVES:
            report.verdict = DoctorVerdict.IN_PART
        report.problems.append(f"{report.extent.missing_share:.1%} of the memory is after the end of the file")
        report.advice.append("the dump was cut off: copy it again; what is there is used, but threads may be missing")


def _advise_on_pages(report: DoctorReport) -> None:
    images = total(process.images for process in report.processes)
    missing = total([images, *(process.stacks for process in report.processes)])
    if missing.get(PageOrigin.PAGED_OUT):
        again = report.commands.throwstack("doctor", "--page-file", "pagefile.sys")
        vol = report.commands.vol("windows.unhandled", "pagefile.sys")
        report.advice.append(f"pages are in a page file: give it: {again}; to Volatility: {vol}")
    if missing.get(PageOrigin.COMPRESSED):
        why = "; ".join(report.store_problems)
        report.advice.append(f"pages are in the compressed store of Windows 10 and later and cannot be read: {why}")
    if images.get(PageOrigin.IN_FILE) or images.get(PageOrigin.NOT_IN_DUMP):
        report.advice.append("image pages are not in the dump: give the machine's files with --image-path")
