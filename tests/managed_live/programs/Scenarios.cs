// SPDX-License-Identifier: Apache-2.0
// What the scenarios do. A scenario's name is in tests/managed_live/fixtures.py too.
using System;
using System.Collections.Generic;
using System.Reflection;
using System.Reflection.Emit;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;
using Shop.Orders;

namespace Shop {
    public static class Scenario {
        const MethodImplOptions Kept = MethodImplOptions.NoInlining;

        [MethodImpl(Kept)]
        public static void Run(string name) {
            switch (name) {
                case "application": Application(17, "Berlin"); break;
                case "inner": Inner(); break;
                case "catch": InCatch(5); break;
                case "generics": Generics(); break;
                case "delegate": ByDelegate(); break;
                case "task": Tasks(); break;
                case "static": Console(Prices.Standard); break;
                case "null": Nulls(null); break;
                case "overflow": LeaveRoomForHandler(); Overflow(1, 2.0); break;
                case "callback": Callback(); break;
                case "dynamic": Dynamic(); break;
                case "finalizer": Finalizer(); break;
                case "pool": Pool(); break;
                case "argument": Argument("order", -4); break;
                case "rethrow": Rethrow(); break;
                case "dispatchinfo": DispatchInfo(); break;
                case "async": Async().GetAwaiter().GetResult(); break;
                case "thread": OnThread(); break;
                case "signatures": foreach (decimal one in Signatures.Each(1, IntPtr.Zero, null)) GC.KeepAlive(one); break;
                case "nomessage": throw new OrderException(null, new Exception(""));
                default: throw new NotSupportedException(name);
            }
        }

        [MethodImpl(Kept)]
        static void Console(int value) { GC.KeepAlive(value); }

        // An application's own exception, with an HRESULT that is another's.
        [MethodImpl(Kept)]
        static void Application(int order, string city) {
            throw new OrderException("order " + order + " cannot go to " + city, null);
        }

        // Three inner exceptions, each thrown on a stack of its own.
        [MethodImpl(Kept)]
        static void Inner() { Level(3, new List<string> { "a", "b" }); }

        [MethodImpl(Kept)]
        static void Level(int depth, List<string> names) {
            if (depth == 0) {
                Format(names, out names, 'x', 1.5f);
                return;
            }
            try {
                Level(depth - 1, names);
            } catch (Exception inner) {
                throw new OrderException("level " + depth, inner);
            }
        }

        [MethodImpl(Kept)]
        static void Format(List<string> names, out List<string> same, char letter, float factor) {
            same = names;
            throw new FormatException("no number in " + names[1]);
        }

        // A throw inside a catch block, without an inner exception: the first throw's dispatch is still on the stack.
        [MethodImpl(Kept)]
        static void InCatch(int value) {
            try {
                First(value);
            } catch (ApplicationException) {
                Second(new[] { value, value + 1 }, DateTime.MinValue);
            }
        }

        [MethodImpl(Kept)]
        static void First(long value) { throw new ApplicationException("first"); }

        [MethodImpl(Kept)]
        static void Second(int[] values, DateTime when) { throw new TimeoutException("second, while the first was handled"); }

        [MethodImpl(Kept)]
        static void Generics() {
            var line = new Basket<string, Dictionary<int, Money>>.Line<List<byte[]>>();
            line.Convert<Version[]>(new[] { "k" }, new Dictionary<int, Money>(), null, _ => null);
        }

        delegate double Rate(Money amount, ref double factor, params object[] more);

        [MethodImpl(Kept)]
        static void ByDelegate() {
            int captured = 3;
            Rate rate = (Money amount, ref double factor, object[] more) => Divide(captured, more.Length, ref factor);
            double one = 1;
            rate(new Money(5), ref one);
        }

        [MethodImpl(Kept)]
        static double Divide(int value, int by, ref double factor) { return value / by * factor; }

        // An AggregateException with three inner exceptions.
        [MethodImpl(Kept)]
        static void Tasks() {
            var all = new Task[3];
            for (int i = 0; i < all.Length; i++) {
                int number = i;
                all[i] = Task.Factory.StartNew(() => Work(number), CancellationToken.None, TaskCreationOptions.None, TaskScheduler.Default);
                while (!all[i].IsCompleted) Thread.Sleep(1); // .NET 8 keeps them in the order in which they failed
            }
            Task.WhenAll(all).Wait(); // the trimmed library of the single-file host has no WaitAll
        }

        [MethodImpl(Kept)]
        static void Work(int number) {
            if (number == 1) throw new KeyNotFoundException("work 1 has no key");
            throw new InvalidOperationException("work " + number + " failed");
        }

        static class Prices {
            internal static readonly int Standard;
            static Prices() { Standard = Parse("twelve"); }

            [MethodImpl(Kept)]
            static int Parse(string text) { return int.Parse(text); }
        }

        [MethodImpl(Kept)]
        static int Nulls(string text) { return Length(text); }

        [MethodImpl(Kept)]
        static int Length(string text) { return text.Length; }

        // Wine leaves the guard page at the very end of a stack, where a handler has no room; Windows has it higher up.
        [DllImport("kernel32.dll")]
        static extern void GetCurrentThreadStackLimits(out IntPtr low, out IntPtr high);

        [DllImport("kernel32.dll")]
        static extern bool VirtualProtect(IntPtr address, IntPtr size, uint protection, out uint old);

        [DllImport("kernel32.dll")]
        static extern bool SetThreadStackGuarantee(ref uint size);

        [MethodImpl(Kept)]
        static void LeaveRoomForHandler() {
            IntPtr low, high;
            uint old, room = 0x40000;
            SetThreadStackGuarantee(ref room);
            GetCurrentThreadStackLimits(out low, out high);
            VirtualProtect(new IntPtr(low.ToInt64() + 0x30000), new IntPtr(0x1000), 0x104, out old);
        }

        [MethodImpl(Kept)]
        static double Overflow(int depth, double sum) { return Overflow(depth + 1, sum + depth) + 1.0; }

        // Native code calls back: P/Invoke outward, reverse P/Invoke inward.
        [UnmanagedFunctionPointer(CallingConvention.Winapi)]
        delegate bool LocaleProc(IntPtr name);

        [DllImport("kernel32.dll")]
        static extern bool EnumSystemLocalesW(LocaleProc proc, uint flags);

        [MethodImpl(Kept)]
        static void Callback() {
            LocaleProc proc = OnLocale;
            EnumSystemLocalesW(proc, 1);
            GC.KeepAlive(proc);
        }

        [MethodImpl(Kept)]
        static bool OnLocale(IntPtr name) { throw new ArithmeticException("thrown in a callback of native code"); }

        [MethodImpl(Kept)]
        static void Dynamic() {
            var method = new DynamicMethod("dyn_calc", typeof(int), new[] { typeof(int), typeof(string) }, typeof(Scenario).Module, true);
            ILGenerator il = method.GetILGenerator();
            il.Emit(OpCodes.Ldarg_0);
            il.Emit(OpCodes.Ldarg_1);
            il.Emit(OpCodes.Call, typeof(Scenario).GetMethod("Calculated", BindingFlags.NonPublic | BindingFlags.Static));
            il.Emit(OpCodes.Ldc_I4_1);
            il.Emit(OpCodes.Add); // after the call, so that it is no tail call and the frame stays
            il.Emit(OpCodes.Ret);
            var calc = (Func<int, string, int>)method.CreateDelegate(typeof(Func<int, string, int>));
            calc(4, "four");
        }

        [MethodImpl(Kept)]
        static int Calculated(int number, string text) { throw new OverflowException("calculated " + text); }

        sealed class Leaver {
            ~Leaver() { Leave("door"); }

            [MethodImpl(Kept)]
            void Leave(string by) { throw new InvalidOperationException("finalized by the " + by); }
        }

        [MethodImpl(Kept)]
        static void Finalizer() {
            MakeGarbage();
            GC.Collect();
            GC.WaitForPendingFinalizers();
            Thread.Sleep(Timeout.Infinite);
        }

        [MethodImpl(Kept)]
        static void MakeGarbage() { for (int i = 0; i < 10; i++) GC.KeepAlive(new Leaver()); }

        [MethodImpl(Kept)]
        static void Pool() {
            ThreadPool.QueueUserWorkItem(PoolWork, "item");
            Thread.Sleep(Timeout.Infinite);
        }

        [MethodImpl(Kept)]
        static void PoolWork(object state) { throw new RankException("pool work of " + state); }

        [MethodImpl(Kept)]
        static void Argument(string what, int count) {
            if (count < 0) throw new ArgumentOutOfRangeException(nameof(count), "must not be negative");
        }

        // `throw;` keeps the frames of the first throw.
        [MethodImpl(Kept)]
        static void Rethrow() {
            try {
                First(1);
            } catch (ApplicationException) {
                throw;
            }
        }

        // An exception that is caught, kept, and thrown again elsewhere: "End of stack trace from previous location".
        [MethodImpl(Kept)]
        static void DispatchInfo() {
            ExceptionDispatchInfo kept = null;
            try {
                First(2);
            } catch (ApplicationException error) {
                kept = ExceptionDispatchInfo.Capture(error);
            }
            ThrowKept(kept);
        }

        [MethodImpl(Kept)]
        static void ThrowKept(ExceptionDispatchInfo kept) { kept.Throw(); }

        [MethodImpl(Kept)]
        static async Task Async() {
            await Task.Delay(10).ConfigureAwait(false);
            await AsyncInner("basket", 2);
        }

        [MethodImpl(Kept)]
        static async Task<int> AsyncInner(string name, int count) {
            await Task.Yield();
            First(count);
            return count;
        }

        // Not the main thread; with a name.
        [MethodImpl(Kept)]
        static void OnThread() {
            var thread = new Thread(ThreadStart) { Name = "ledger" };
            thread.Start("start");
            thread.Join();
        }

        [MethodImpl(Kept)]
        static void ThreadStart(object state) { throw new OrderException("on a thread of its own, from " + state, null); }
    }
}
