// SPDX-License-Identifier: Apache-2.0
// Threads that did not crash but look as if: one handled exceptions and waits, others wait inside a catch or finally block.
// Their names say what they are. None may be reported.
using System;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace Shop {
    public static class Decoys {
        const MethodImplOptions Kept = MethodImplOptions.NoInlining;
        static readonly ManualResetEvent Never = new ManualResetEvent(false);
        static int toBegin = 5;

        [DllImport("wine_help.dll", CharSet = CharSet.Unicode)]
        static extern void note_thread(string name, string stack);

        [DllImport("wine_help.dll")]
        static extern void begin_help();

        public static void Start() {
            begin_help();
            Start("handled", Handled);
            Start("in-catch", InCatch);
            Start("in-nested-catch", InNestedCatch);
            Start("in-finally", InFinally);
            Start("waits", Wait);
            while (Volatile.Read(ref toBegin) > 0) Thread.Sleep(1);
        }

        static void Start(string name, ThreadStart work) {
            new Thread(work) { IsBackground = true, Name = "decoy " + name }.Start();
        }

        [MethodImpl(Kept)]
        static void Fail(string who) { throw new NotImplementedException("handled by " + who); }

        [MethodImpl(Kept)]
        static void Wait() {
            note_thread(Thread.CurrentThread.Name, Environment.StackTrace);
            Interlocked.Decrement(ref toBegin);
            Never.WaitOne();
        }

        [MethodImpl(Kept)]
        static void Handled() {
            for (int i = 0; i < 3; i++) {
                try { Fail("handled"); } catch (NotImplementedException) { }
            }
            Wait();
            GC.KeepAlive(Never);
        }

        [MethodImpl(Kept)]
        static void InCatch() {
            try { Fail("in-catch"); } catch (NotImplementedException) { Wait(); }
        }

        [MethodImpl(Kept)]
        static void InNestedCatch() {
            try {
                try { Fail("in-nested-catch"); } catch (NotImplementedException error) { throw new InvalidCastException("outer", error); }
            } catch (InvalidCastException) {
                Wait();
            }
        }

        [MethodImpl(Kept)]
        static void InFinally() {
            try {
                try { Fail("in-finally"); } finally { Wait(); }
            } catch (NotImplementedException) { }
        }
    }
}
