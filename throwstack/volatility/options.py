# SPDX-License-Identifier: Apache-2.0
"""What the plugins have in common: their requirements and their options.

Volatility imports every plugin for every command, so all that is loaded here costs every user of `vol` its time. The
engine is loaded when one of our plugins runs (`throwstack.volatility.plugin_runs`).
"""

from __future__ import annotations

from importlib.util import find_spec

from volatility3.framework import interfaces
from volatility3.framework.configuration import requirements
from volatility3.plugins.windows import pslist

from throwstack.core.sides import OLDER_WORDS, SIDES_BY_WORD
from throwstack.names.name_style import NameStyle

_LIBRARIES = ("capstone", "pefile", "pydemumble")
"""What the engine imports. Volatility says of a plugin whose import fails that it was not loaded, and why."""
for _library in _LIBRARIES:
    if find_spec(_library) is None:
        _message = f"No module named {_library!r}"
        raise ModuleNotFoundError(_message, name=_library)


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


def name_style(plugin: interfaces.plugins.PluginInterface) -> NameStyle:
    """Return how a plugin with the frame requirements was told to name functions."""
    return NameStyle(plugin.config.get("names") or NameStyle.PLAIN.value)
