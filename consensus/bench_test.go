package consensus_test

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// Acknowledged writes of 64 clients at once to three managers on one machine,
// each with a log of its own that is synced to disk, sealed as always and, to see
// what that costs, in the clear.
func BenchmarkPropose(b *testing.B) {
	b.Run("sealed", func(b *testing.B) { benchmarkPropose(b) })
	b.Run("clear", func(b *testing.B) { benchmarkPropose(b, keys(nil)) })
}

func benchmarkPropose(b *testing.B, set ...settings) {
	peers := cluster(b, 3, set...)
	leader := waitLeader(b, peers...)
	ctx := within(b)
	var n atomic.Int64
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := tryPropose(ctx, leader, fmt.Sprint("net", n.Add(1))); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}
