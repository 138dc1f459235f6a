package cni

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// BenchmarkAttach reports the median time of one Attach in milliseconds, of which parallel ones run at once. The pool
// is full before each round, as it is on a box that was idle.
func BenchmarkAttach(b *testing.B) {
	for _, c := range []struct{ pool, parallel int }{{0, 1}, {0, 8}, {2, 1}, {2, 8}, {8, 8}} {
		b.Run(fmt.Sprintf("pool=%d/parallel=%d", c.pool, c.parallel), func(b *testing.B) {
			cfg := mustConfig(b)
			cfg.PoolSize = c.pool
			n, err := Open(b.Context(), cfg)
			require.NoError(b, err)
			defer func() { require.NoError(b, n.Close()) }()
			var times []time.Duration
			for b.Loop() {
				require.Eventually(b, func() bool { return !n.pool.short() }, limit, time.Millisecond)
				took, attached := make([]time.Duration, c.parallel), make([]Attachment, c.parallel)
				group := new(errgroup.Group)
				for i := range c.parallel {
					group.Go(func() (err error) {
						start := time.Now()
						attached[i], err = n.Attach(b.Context())
						took[i] = time.Since(start)
						return err
					})
				}
				require.NoError(b, group.Wait())
				times = append(times, took...)
				for _, a := range attached {
					require.NoError(b, n.Detach(context.Background(), a.ID))
				}
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}
