# SPDX-License-Identifier: Apache-2.0
"""A process's VADs as a balanced tree, in the forms that Windows has had.

XP: EPROCESS.VadRoot points to the root. 2003 to 8: an _MM_AVL_TABLE in the EPROCESS, the tree being its right child.
From 8.1 on: an _RTL_AVL_TREE of _RTL_BALANCED_NODEs. The two newer forms keep a node's balance in the low bits of its
parent pointer. The pool tag tells readers which structure a node is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.forge.kernel_memory import KernelMemory
from tests.forge.physical import PAGE
from tests.forge.pte import MM_PROTECTION
from tests.forge.structures import Structure
from tests.forge.user_space import Vad

_IMAGE = 2
"""MI_VAD_TYPE VadImageMap."""
_LEFT = ("LeftChild", "VadNode.Left")
_RIGHT = ("RightChild", "VadNode.Right")


@dataclass(frozen=True)
class _Subtree:
    node: int
    height: int


def write_vads(kernel: KernelMemory, process: Structure, vads: Sequence[Vad]) -> None:
    """Write the VADs (in the order of their addresses) and hang their tree into the EPROCESS."""
    nodes = [_write_vad(kernel, process, vad) for vad in vads]
    table = process.has("VadRoot.BalancedRoot")
    top = process.at("VadRoot.BalancedRoot") if table else 0
    tree = _link(nodes, top)
    root = tree.node if tree else 0
    if table:
        process.put("VadRoot.BalancedRoot.u1.Parent", top)
        process.put("VadRoot.BalancedRoot.RightChild", root)
        process.put("VadRoot.NumberGenericTableElements", len(nodes))
        process.put("VadRoot.DepthOfTree", tree.height if tree else 0)
        process.put("VadRoot.NodeHint", root)
    else:
        process.put_any(("VadRoot.Root", "VadRoot"), root)
        process.put_all(VadHint=root, VadCount=len(nodes))


def _write_vad(kernel: KernelMemory, process: Structure, vad: Vad) -> Structure:
    layout = kernel.layout
    if vad.section is None:
        address = kernel.allocate_struct("_MMVAD_SHORT", tag=b"VadS")
    else:
        address = kernel.allocate_struct("_MMVAD", tag=b"Vad ")
        mapped = Structure(kernel, layout, "_MMVAD", address)
        mapped.put_any(("ControlArea",), vad.section.control_area)
        mapped.put_all(
            Subsection=vad.section.subsections[0],
            FirstPrototypePte=vad.section.prototypes,
            LastContiguousPte=vad.section.prototype(vad.section.pages - 1),
            VadsProcess=process.address,
            FileObject=vad.section.file_object,
        )
    node = Structure(kernel, layout, "_MMVAD_SHORT", address)
    first, last = vad.start // PAGE, vad.end // PAGE - 1
    node.put("StartingVpn", first)
    node.put("EndingVpn", last)
    node.put_all(StartingVpnHigh=first >> 32, EndingVpnHigh=last >> 32)
    node.put("u.VadFlags.Protection", MM_PROTECTION[vad.protection])
    node.put_any(("u.VadFlags.CommitCharge", "u1.VadFlags1.CommitCharge"), vad.committed)
    node.put_any(("u.VadFlags.PrivateMemory", "u1.VadFlags1.PrivateMemory"), vad.section is None)
    node.put_any(("u.VadFlags.MemCommit", "u1.VadFlags1.MemCommit"), vad.is_committed)
    if vad.is_image:
        if node.has("u.VadFlags.VadType"):
            node.put("u.VadFlags.VadType", _IMAGE)
        else:
            node.put("u.VadFlags.ImageMap", 1)
    return node


def _link(nodes: Sequence[Structure], parent: int) -> _Subtree | None:
    """Link nodes into a tree whose subtrees differ by one level at most; return its root."""
    if not nodes:
        return None
    middle = len(nodes) // 2
    node = nodes[middle]
    left, right = _link(nodes[:middle], node.address), _link(nodes[middle + 1 :], node.address)
    node.put_any(_LEFT, left.node if left else 0)
    node.put_any(_RIGHT, right.node if right else 0)
    heights = (left.height if left else 0, right.height if right else 0)
    balance = heights[1] - heights[0] & 3
    if node.has("Parent"):
        node.put("Parent", parent)
    else:
        node.put_any(("u1.Parent", "VadNode.ParentValue"), parent | balance)
    return _Subtree(node.address, 1 + max(heights))
