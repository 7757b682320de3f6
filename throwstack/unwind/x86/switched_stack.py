# SPDX-License-Identifier: Apache-2.0
"""Recognizes functions that run a routine on another stack, and whose caller is on the first stack.

Split stacks and coroutines do that: `push ebp; mov ebp, esp; mov esp, [ebp+8]; call edx; mov esp, ebp; pop ebp; ret`.
ebp keeps the way back. So the slot of the return address is not above the routine's frame, and may be outside the
bounds of the stack that is walked. Everywhere else such a slot proves that a rule is wrong. Here the two stacks are
different regions of memory, and only code that was followed (or a record) is believed.
"""

from __future__ import annotations

from throwstack.core.frames import StackBounds
from throwstack.unwind.thread_start import StackEnds
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.candidates import INDEPENDENT, Rule

SWITCHED = "the function had switched to another stack"


def is_on_another_stack(place: Place, rule: Rule, caller: Caller, stack: StackBounds, ends: StackEnds) -> bool:
    """Say whether `caller`, which `rule` found for the frame at `place`, is on another stack than that frame.

    One of the two is on the recorded `stack`, or their stacks are known to be different regions of memory. The return
    address is after a call. `ends` knows the regions and the return addresses.
    """
    if stack.contains(caller.slot, 4) and (caller.is_in_register or caller.slot >= place.lowest_sp):
        return False
    if rule not in INDEPENDENT or caller.doubt or not caller.is_consistent or caller.slot % 4:
        return False
    is_left = stack.is_recorded and stack.contains(caller.slot, 4) != stack.contains(place.lowest_sp)
    return (is_left or ends.are_apart(caller.slot, place.lowest_sp)) and ends.is_return_address(caller.return_address)
