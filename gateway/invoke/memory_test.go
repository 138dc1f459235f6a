package invoke

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/guard/budget"
)

func TestInvoke_ResultWithoutRoom_IsRefusedAndTheWorkerKept(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct {
		raw   string
		dials int
	}{
		"with a length": {ok + "Content-Length: " + strconv.Itoa(len(large)) + "\r\n\r\n" + large, 1},
		"chunked":       {ok + "Transfer-Encoding: chunked\r\n\r\n" + strconv.FormatInt(int64(len(large)), 16) + "\r\n" + large + "\r\n0\r\n\r\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn, w := &box{kind: gateway.Supervisor}, function(), says(c.raw, true)
				i := mustNew(t, b, fn)
				w.pipe(i)
				invoke := func(memory *budget.Budget) (gateway.Result, error) {
					claim := memory.Claim("a")
					defer claim.Release()
					return i.Invoke(context.Background(), fn, gateway.Invocation{RequestID: "r", Payload: []byte("{}"), Memory: &claim})
				}
				_, err := invoke(budget.New(1 << 20))
				var refused *gateway.Error
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, gateway.CodeUnavailable, refused.Code)
				assert.True(t, refused.Busy)
				assert.Positive(t, refused.RetryAfter)

				res, err := invoke(budget.New(64 << 20))
				require.NoError(t, err)
				assert.Len(t, res.Payload, len(large))
				starts, stopped := b.seen()
				dials, _ := w.seen()
				assert.Equal(t, []int{1, c.dials}, []int{starts, dials})
				assert.Empty(t, stopped)
			})
		})
	}
}
