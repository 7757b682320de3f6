import random, sys, time, collections
from tests.unwind.x86.generate import Writer
from tests.unwind.x86.emulate import Machine
from tests.unwind.x86.machine import *
from throwstack.unwind.x86 import Unwinder
from throwstack.frames import StackBounds, End, Trust
from throwstack.images import ImageMap


def run(seed, mode, verbose=True, limit=1500):
    rng = random.Random(seed)
    prog = Writer(rng, 7).program()
    exports = {n: a for n, a in prog.labels.items() if n in ("f0", "f3", "main")}
    m = Machine(prog, exports)
    images = images_of(m)
    full = {n: a for n, a in prog.labels.items()}
    symbols = symbols_of(images, full if mode != "exports" else None)
    un = Unwinder(images, symbols, Records(prog.records) if mode == "data" else None)
    bounds = StackBounds(STACK_LIMIT, STACK_BASE)
    total = good = 0
    bad = collections.Counter()
    viol = 0
    regbad = 0
    incomplete = 0
    shown = 0
    for regs in m.run(limit):
        for p in list(images.memory._pages):
            if STACK_LIMIT <= p < STACK_BASE:
                del images.memory._pages[p]
        w = un.walk(regs, bounds)
        truth = m.stack[::-1]
        total += 1
        ok = len(w.frames) >= len(truth)
        why = ""
        inhelper = prog.is_helper(regs.ip)
        for i, t in enumerate(truth):
            if i >= len(w.frames):
                ok = False
                why = f"short {i}/{len(truth)} {w.end}"
                break
            f = w.frames[i]
            if f.return_address != t.return_address or (f.return_slot != t.slot and not (inhelper and i == 0)):
                ok = False
                why = f"frame {i} got {f.return_address and hex(f.return_address)}@{f.return_slot and hex(f.return_slot)} want {t.return_address:#x}@{t.slot:#x}"
                if f.return_slot is not None and i + 1 < len(w.frames):
                    if w.frames[i + 1].trust in (Trust.CFI, Trust.FPO, Trust.FRAME_POINTER):
                        viol += 1
                        why += " VIOLATION " + w.frames[i + 1].trust.value
                break
            if i + 1 < len(w.frames) and not (inhelper and i == 0):
                g = w.frames[i + 1].registers
                for r in (3, 5, 6, 7):
                    if g.gpr[r] is not None and g.gpr[r] != t.gpr[r]:
                        regbad += 1
                        why += f" reg{r} of frame {i + 1}: {g.gpr[r]:#x} want {t.gpr[r]:#x}"
                        ok = False
                    if g.gpr[r] is None:
                        incomplete += 1
                if g.sp != t.slot + 4 + t.popped:
                    why += f" sp of {i + 1} off {g.sp - (t.slot + 4 + t.popped)}"
                    bad["sp"] += 1
        if ok:
            good += 1
        else:
            bad[why.split(" got")[0][:30]] += 1
        if why and verbose and shown < 6:
            shown += 1

            def nm(a):
                s = max((v, k) for k, v in prog.labels.items() if v <= a)
                return f"{s[1]}+{a - s[0]:x}"

            print(
                mode,
                seed,
                hex(regs.ip),
                nm(regs.ip),
                why,
                [nm(t.return_address) for t in truth],
                [(nm(f.ip) if f.ip > 0x401000 else hex(f.ip), f.trust.value) for f in w.frames],
                {
                    f.name: (f.kind.name, f.convention.name, f.via)
                    for f in prog.functions
                    if f.name in (nm(regs.ip).split("+")[0], *[nm(t.return_address).split("+")[0] for t in truth])
                },
            )
    return total, good, viol, regbad, incomplete, bad


if __name__ == "__main__":
    a, b = int(sys.argv[1]), int(sys.argv[2])
    for mode in sys.argv[3].split(","):
        T = [0] * 5
        t0 = time.time()
        for s in range(a, b):
            r = run(s, mode, verbose=len(sys.argv) > 4)
            T = [x + y for x, y in zip(T, r[:5])]
            if len(sys.argv) > 4:
                print(s, r)
        print(mode, T, T[1] / T[0], time.time() - t0)
