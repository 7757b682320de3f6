# SPDX-License-Identifier: Apache-2.0
"""Says of a crash dump that it is cut off, before Volatility says anything else about it.

Such a dump is often one that Volatility cannot open: what leads to the kernel may be in the lost part. Its advice is
then to look for other symbols. Volatility tries all stacker classes that are imported, each on the file first; ours
comes before its own, looks, and takes nothing. With a saved configuration no stacker is asked, so plugins ask as well.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from urllib.parse import urlsplit
from urllib.request import url2pathname

from volatility3.framework import constants, interfaces
from volatility3.framework.layers import physical

from throwstack.core.text import escape
from throwstack.crashdump.dump_pages import DumpPages
from throwstack.crashdump.file_kind import FileKind, identify
from throwstack.crashdump.runs import NoRuns, read_runs
from throwstack.volatility.opening.layer_bytes import LayerBytes

log = logging.getLogger(__name__)

_said: set[str] = set()
"""The locations of the files of which it was said: each file is looked at several times in a run."""


class CutOffStacker(interfaces.automagic.StackerLayerInterface):  # type: ignore[misc]
    """Warns of a dump that is cut off; stacks nothing."""

    stack_order = 1
    exclusion_list = ["mac", "linux"]  # noqa: RUF012 - as Volatility declares it

    @classmethod
    def stack(
        cls,
        context: interfaces.context.ContextInterface,
        layer_name: str,
        progress_callback: constants.ProgressCallback = None,  # noqa: ARG003 - Volatility's signature
    ) -> None:
        """Look at the layer `layer_name`."""
        _look_at(context.layers[layer_name])


def say_if_cut_off(context: interfaces.context.ContextInterface) -> None:
    """Warn if a file of `context` is a dump that is cut off, once for each file."""
    for layer in list(context.layers.values()):
        _look_at(layer)


def _look_at(layer: interfaces.layers.DataLayerInterface) -> None:
    if not isinstance(layer, physical.FileLayer) or layer.location in _said:
        return
    data = LayerBytes(layer)
    identity = identify(data)
    if identity.kind is FileKind.CUT_HEADER:
        missing = "it ends within its header"
    elif identity.header is not None:
        try:
            extent = DumpPages(data, read_runs(data, identity.header)).extent
        except NoRuns:
            return
        if not extent.missing:
            return
        missing = f"{extent.missing_share:.1%} of its memory is missing at the end, and threads may be missing with it"
    else:
        return
    _said.add(layer.location)
    path = url2pathname(urlsplit(layer.location).path)
    command = subprocess.list2cmdline([path]) if os.name == "nt" else shlex.quote(path)
    log.warning("this dump is cut off: %s. throwstack doctor %s says what can be done", missing, escape(command, 1024))
