# SPDX-License-Identifier: Apache-2.0
"""Makes the survey of the machine that a plugin's options ask for, when the plugin runs.

This module imports the engine, so plugins import it only when they run (`throwstack.volatility.options` says why).
"""

from __future__ import annotations

import logging

from volatility3.framework import exceptions, interfaces

from throwstack.core.guard import reason_of
from throwstack.core.sides import Sides, sides_of
from throwstack.core.text import escape
from throwstack.report.frame_report import FrameDetail
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.read_faults import read_problems
from throwstack.volatility.opening.cut_off import say_if_cut_off
from throwstack.volatility.opening.sources import Sources, paths
from throwstack.volatility.survey import Selection, Survey

log = logging.getLogger(__name__)


def _wow64_sides(plugin: interfaces.plugins.PluginInterface) -> Sides:
    (requirement,) = (one for one in plugin.get_requirements() if one.name == "wow64")
    return sides_of(plugin.config.get("wow64") or requirement.default)


def frame_detail(plugin: interfaces.plugins.PluginInterface) -> FrameDetail:
    """Return what the user of a plugin with the frame requirements wants to see of each frame."""
    return FrameDetail(
        registers=bool(plugin.config.get("registers")),
        fpo=bool(plugin.config.get("kv")),
        variables=bool(plugin.config.get("locals")),
    )


def open_survey(plugin: interfaces.plugins.PluginInterface) -> Survey:
    """Return the survey of the machine and of the processes that the options of `plugin` select.

    The plugin has the common requirements. A SymbolSpaceError with the reason is raised if the machine cannot be
    examined.
    """
    say_if_cut_off(plugin.context)
    config, progress = plugin.config, plugin._progress_callback  # noqa: SLF001 a plugin's own, handed on by it
    sources = Sources(*paths(config.get("symbol_path"), config.get("image_path")), progress)
    names = config.get("process") or ()
    sides, handled = _wow64_sides(plugin), bool(config.get("handled"))
    selection = Selection(config.get("pid") or (), config.get("tid") or (), names, sides, handled)
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
