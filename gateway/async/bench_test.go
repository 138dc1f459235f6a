package async

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// BenchmarkQueue_Enqueue is how fast events become durable, by how many callers there are.
func BenchmarkQueue_Enqueue(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			q, err := Open(b.Context(), options(b.TempDir(), newInvoker()))
			require.NoError(b, err)
			b.Cleanup(func() { require.NoError(b, q.Close(b.Context())) })
			f := function("f") // not configured: nothing runs
			payload := make([]byte, 500)
			b.SetParallelism(max(1, callers/2))
			if callers == 1 {
				for b.Loop() {
					require.NoError(b, q.Enqueue(b.Context(), f, gateway.Invocation{RequestID: "r", Payload: payload}))
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := q.Enqueue(b.Context(), f, gateway.Invocation{RequestID: "r", Payload: payload}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
