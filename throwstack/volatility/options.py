# SPDX-License-Identifier: Apache-2.0
"""What the plugins have in common: their requirements, their options, and the machine made from both."""

from __future__ import annotations

import logging

from volatility3.framework import exceptions, interfaces
from volatility3.framework.configuration import requirements
from volatility3.plugins.windows import pslist

from throwstack.core.guard import reason_of
from throwstack.core.sides import OLDER_WORDS, SIDES_BY_WORD, Sides, sides_of
from throwstack.core.text import escape
from throwstack.report.frame_report import FrameDetail, NameStyle
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.read_faults import read_problems
from throwstack.volatility.opening.sources import Sources, paths
from throwstack.volatility.survey import Selection, Survey

log = logging.getLogger(__name__)


def common_requirements() -> list[interfaces.configuration.RequirementInterface]:
    """Return the kernel (under the name that every plugin's saved configuration has) and the common options."""
    return [
        requirements.ModuleRequirement(
            name="kernel", description="Windows kernel", architectures=["Intel32", "Intel64"]
        ),
        requirements.VersionRequirement(name="pslist", component=pslist.PsList, version=(3, 0, 0)),
        requirements.ListRequirement(
            name="pid", element_type=int, description="Look only at processes with these IDs", optional=True
        ),
        requirements.ListRequirement(
            name="tid", element_type=int, description="Look only at threads with these IDs", optional=True
        ),
        requirements.StringRequirement(
            name="symbol_path",
            description="Where PDBs are: directories and srv*cache*server, as WinDbg's .sympath takes them",
            optional=True,
        ),
        requirements.StringRequirement(
            name="image_path",
            description="Where the DLLs and EXEs of the machine are, for pages that the dump lacks",
            optional=True,
        ),
    ]


def frame_requirements() -> list[interfaces.configuration.RequirementInterface]:
    """Return the options of plugins that print frames: what is said of each, and how functions are named."""
    return [
        requirements.BooleanRequirement(
            name="kv",
            description="Show what PDBs say of x86 frames, as kv does: FPO: [parameters,locals,registers]",
            default=False,
            optional=True,
        ),
        requirements.ChoiceRequirement(
            name="names",
            choices=[style.value for style in NameStyle],
            description="Names of functions: plain, raw (decorated), or signature (with parameter types)",
            default=NameStyle.PLAIN.value,
            optional=True,
        ),
    ]


class _ShownChoices(list[str]):
    """The words of an option that its help shows; it takes older words too."""

    def __contains__(self, word: object) -> bool:
        return super().__contains__(word) or word in OLDER_WORDS


def wow64_requirement(description: str, *, default: str) -> interfaces.configuration.RequirementInterface:
    """Return the option `--wow64`: the sides of 32-bit processes on 64-bit Windows that a plugin shows."""
    return requirements.ChoiceRequirement(
        name="wow64", choices=_ShownChoices(SIDES_BY_WORD), description=description, default=default, optional=True
    )


def _wow64_sides(plugin: interfaces.plugins.PluginInterface) -> Sides:
    (requirement,) = (one for one in plugin.get_requirements() if one.name == "wow64")
    return sides_of(plugin.config.get("wow64") or requirement.default)


def name_style(plugin: interfaces.plugins.PluginInterface) -> NameStyle:
    """Return how a plugin with the frame requirements was told to name functions."""
    return NameStyle(plugin.config.get("names") or NameStyle.PLAIN.value)


def frame_detail(plugin: interfaces.plugins.PluginInterface) -> FrameDetail:
    """Return what a plugin with the frame requirements was told to show of each frame."""
    return FrameDetail(registers=bool(plugin.config.get("registers")), fpo=bool(plugin.config.get("kv")))


def open_survey(plugin: interfaces.plugins.PluginInterface) -> Survey:
    """Return the survey of the machine that a plugin with the common requirements was given."""
    config, progress = plugin.config, plugin._progress_callback  # noqa: SLF001 a plugin's own, handed on by it
    sources = Sources(*paths(config.get("symbol_path"), config.get("image_path")), progress)
    names = config.get("process") or ()
    selection = Selection(config.get("pid") or (), config.get("tid") or (), names, _wow64_sides(plugin))
    try:
        return Survey(Machine(plugin.context, config["kernel"], plugin.config_path, sources), selection, progress)
    except (LookupError, TypeError) as error:
        reason = escape(str(error), 1024)
    except Exception as error:
        log.debug("the machine cannot be examined", exc_info=True)
        reason = f"the machine cannot be examined: {reason_of(error)}"
    for problem in read_problems(plugin.context):
        log.warning("%s", problem)
    # What Volatility prints as a reason rather than as a traceback.
    raise exceptions.SymbolSpaceError(reason)
