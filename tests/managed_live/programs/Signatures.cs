// SPDX-License-Identifier: Apache-2.0
// Methods of every kind that a stack trace can name, each called by the next.
using System;
using System.Collections.Generic;
using System.Runtime.CompilerServices;
using Shop.Orders;

namespace Shop {
    public interface IAudited<T> {
        T Audit(T item, int level);
    }

    public struct Weight {
        public double Grams;

        [MethodImpl(MethodImplOptions.NoInlining)]
        public static Weight operator +(Weight left, Weight right) {
            throw new NotSupportedException("weights are not added");
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        public Weight Plus(Weight? other) { return this + other.GetValueOrDefault(); }

        public class Scale {
            public enum Unit { Gram, Ounce }

            [MethodImpl(MethodImplOptions.NoInlining)]
            public static unsafe Weight Measure(int[,] grid, byte*[] raw, ref List<int[]>[] lists, out string said, Unit unit) {
                said = null;
                return new Weight { Grams = grid.Length + (int)unit }.Plus(new Weight());
            }
        }
    }

    public class Ledger<TEntry> : IAudited<TEntry[]> where TEntry : struct {
        public unsafe object this[int index, string column] {
            [MethodImpl(MethodImplOptions.NoInlining)]
            get {
                List<int[]>[] lists = null;
                string said;
                return Weight.Scale.Measure(new int[index, 2], null, ref lists, out said, Weight.Scale.Unit.Ounce);
            }
        }

        public Ledger() { }

        [MethodImpl(MethodImplOptions.NoInlining)]
        public Ledger(TEntry? first, IDictionary<string, Lazy<TEntry>> more) { GC.KeepAlive(this[3, "sum"]); }

        [MethodImpl(MethodImplOptions.NoInlining)]
        TEntry[] IAudited<TEntry[]>.Audit(TEntry[] item, int level) {
            GC.KeepAlive(new Ledger<TEntry>(null, null));
            return item;
        }
    }

    public static class Signatures {
        [MethodImpl(MethodImplOptions.NoInlining)]
        public static TResult Audited<TLedger, TResult>(this TLedger ledger, TResult item, params Guid[][] keys)
            where TLedger : IAudited<TResult> {
            return ledger.Audit(item, keys.Length);
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        public static IEnumerable<decimal> Each(long start, IntPtr handle, TimeSpan? pause) {
            yield return start;
            new Ledger<Money>().Audited(new Money[2]);
            yield return 2;
        }
    }
}
