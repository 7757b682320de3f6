# SPDX-License-Identifier: Apache-2.0
"""The requirements and options that the plugins share.

Volatility imports every plugin for every command, so whatever this module imports slows every `vol` command. The engine
is therefore imported only when one of our plugins runs (`throwstack.volatility.plugin_runs`).
"""

from __future__ import annotations

from importlib.util import find_spec

from volatility3.framework import interfaces
from volatility3.framework.configuration import requirements
from volatility3.plugins.windows import pslist

from throwstack.core.sides import OLDER_WORDS, SIDES_BY_WORD
from throwstack.names.name_style import NameStyle
from throwstack.volatility.number_options import IdentifierList

_LIBRARIES = ("capstone", "pefile", "pydemumble")
"""The libraries that the engine imports. If one is missing, Volatility says that it did not load a plugin, and why."""
for _library in _LIBRARIES:
    if find_spec(_library) is None:
        _message = f"No module named {_library!r}"
        raise ModuleNotFoundError(_message, name=_library)


def common_requirements() -> list[interfaces.configuration.RequirementInterface]:
    """Return the requirements that all plugins share: the kernel and the common options.

    The kernel's requirement is called `kernel`, as in the saved configurations of all of Volatility's plugins.
    """
    return [
        requirements.ModuleRequirement(
            name="kernel", description="Windows kernel", architectures=["Intel32", "Intel64"]
        ),
        requirements.VersionRequirement(name="pslist", component=pslist.PsList, version=(3, 0, 0)),
        IdentifierList("pid", "Look only at processes with these IDs (2564, 0xa04, a04)"),
        IdentifierList("tid", "Look only at threads with these IDs"),
        requirements.ListRequirement(
            name="process",
            element_type=str,
            description="Look only at processes of these names (with or without .exe)",
            optional=True,
        ),
        requirements.BooleanRequirement(
            name="wide",
            description="Show all columns, as JSON and CSV always have them, not only those that fit a screen",
            default=False,
            optional=True,
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
    """Return the options of plugins that print frames: what to show of each frame, and how to name functions."""
    return [
        requirements.BooleanRequirement(
            name="kv",
            description="Show what PDBs say of x86 frames, as kv does: FPO: [parameters,locals,registers]",
            default=False,
            optional=True,
        ),
        requirements.BooleanRequirement(
            name="locals",
            description="Show parameters and local variables with their values, where PDBs describe them",
            default=False,
            optional=True,
        ),
        requirements.ChoiceRequirement(
            name="names",
            choices=[style.value for style in NameStyle],
            description="Names of functions: plain, raw (decorated), or signature (with types and names of parameters)",
            default=NameStyle.PLAIN.value,
            optional=True,
        ),
    ]


class _ShownChoices(list[str]):
    """The choices of an option that its help shows. Older words for these choices are accepted as well."""

    def __contains__(self, word: object) -> bool:
        return super().__contains__(word) or word in OLDER_WORDS


def wow64_requirement(description: str, *, default: str) -> interfaces.configuration.RequirementInterface:
    """Return the option `--wow64`, which selects the stacks of 32-bit processes on 64-bit Windows that a plugin shows.

    `description` is the text of its help, and `default` is the word that applies without the option.
    """
    return requirements.ChoiceRequirement(
        name="wow64", choices=_ShownChoices(SIDES_BY_WORD), description=description, default=default, optional=True
    )


def handled_requirement() -> interfaces.configuration.RequirementInterface:
    """Return the option `--handled`, with which exceptions that a handler has taken are listed as well."""
    return requirements.BooleanRequirement(
        name="handled",
        description="List exceptions, too, that a handler has taken and that are still on a stack",
        default=False,
        optional=True,
    )


def name_style(plugin: interfaces.plugins.PluginInterface) -> NameStyle:
    """Return how the user of a plugin with the frame requirements wants functions to be named."""
    return NameStyle(plugin.config.get("names") or NameStyle.PLAIN.value)
