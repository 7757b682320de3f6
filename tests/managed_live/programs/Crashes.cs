// SPDX-License-Identifier: Apache-2.0
// Programs that crash, one for each scenario: `Crashes.dll SCENARIO`. The runtime's own console text is the truth of what
// happened, so nothing here prints. No method of these programs may be inlined: each is a frame of that text.
using System;
using System.Runtime.CompilerServices;

namespace Shop {
    namespace Orders {
        public class OrderException : Exception {
            public OrderException(string message, Exception inner) : base(message, inner) { HResult = unchecked((int)0x80131601); }
        }

        public struct Money {
            public decimal Amount;
            public Money(decimal amount) { Amount = amount; }
        }

        public class Basket<TKey, TItem> {
            public class Line<TNote> {
                [MethodImpl(MethodImplOptions.NoInlining)]
                public void Put(TKey key, TItem item, TNote note, ref int count) {
                    count++;
                    throw new InvalidOperationException("basket of " + typeof(TItem).Name + " is closed");
                }

                [MethodImpl(MethodImplOptions.NoInlining)]
                public TOther Convert<TOther>(TKey[] keys, TItem item, TNote note, Func<TItem, TOther> how) {
                    int count = keys.Length;
                    Put(keys[0], item, note, ref count);
                    return how(item);
                }
            }
        }
    }

    public static class Program {
        public static int Main(string[] arguments) {
            Decoys.Start();
            Scenario.Run(arguments[0]);
            return 0;
        }
    }
}
