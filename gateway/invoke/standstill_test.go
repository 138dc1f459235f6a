package invoke

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// silent is an Examiner whose workers do not answer.
type silent struct{}

func (silent) Examine(ctx context.Context, _ gateway.Worker) (pool.Condition, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// TestInvoke_WorkerStandsStill_EndsLongBeforeTheTimeout: the caller has the error of a worker that has died, and so it is when the
// answer streams.
func TestInvoke_WorkerStandsStill_EndsLongBeforeTheTimeout(t *testing.T) {
	for name, head := range map[string]string{"nothing": "", "in the middle of a stream": "HTTP/1.1 200 OK\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn := &box{}, function()
				fn.Timeout = 15 * time.Minute
				log := slog.New(slog.DiscardHandler)
				m := pool.Open(b, pool.Options{Logger: log, Examiner: silent{}})
				i := New(m, Options{Logger: log})
				m.Apply(map[string]*gateway.Function{fn.Name: fn})
				w := &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
					_, _ = c.Write([]byte(head))
					var one [1]byte
					_, err := c.Read(one[:]) // until the other end closes
					return err == nil
				}}
				w.pipe(i)
				began := time.Now()
				var err error
				if head == "" {
					_, err = i.Invoke(t.Context(), fn, event)
				} else {
					_, err = i.InvokeStream(t.Context(), fn, event, &caller{})
				}
				assert.Equal(t, gateway.CodeTransport, gateway.ErrorCode(err))
				assert.ErrorContains(t, err, "the worker was given up")
				assert.Less(t, time.Since(began), 20*time.Second)
				synctest.Wait()
				_, stopped := b.seen()
				assert.Equal(t, []string{"w1: stands still: it gives no sign of life"}, stopped)
				assert.NoError(t, m.Close(t.Context()))
				i.Wait()
			})
		})
	}
}
