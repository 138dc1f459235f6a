package invoke

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

func TestInvoke_ExtensionsWork_KeepTheWorker(t *testing.T) {
	rest := make(chan bool)
	w := &worker{handle: func(c net.Conn, _ int, r *http.Request, _ []byte) bool {
		if r.URL.Path == "/health" {
			if !<-rest {
				return false
			}
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"state\":\"idle\"}")
			return err == nil
		}
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Esb-Extensions: working\r\nContent-Length: 4\r\n\r\ntrue")
		return err == nil
	}}
	fn := function()
	b := &box{}
	b.addr = w.mustListen(t)
	i := mustNew(t, b, fn)
	state := func() (idle, busy int) {
		s := i.pool.Snapshot()[0]
		return s.Idle, s.Busy
	}
	for n, ends := range []bool{true, false} {
		res, err := i.Invoke(t.Context(), fn, gateway.Invocation{RequestID: "r", Payload: []byte("{}")})
		require.NoError(t, err)
		assert.Equal(t, "true", string(res.Payload))
		_, busy := state()
		assert.Equal(t, 1, busy, "its extensions are at work")
		rest <- ends
		require.Eventually(t, func() bool { idle, busy := state(); return busy == 0 && (idle == 1) == ends }, time.Minute, time.Millisecond, "round %d", n)
	}
	dials, _ := w.seen()
	assert.Equal(t, 1, dials, "it is asked on its own connection")
	require.Eventually(t, func() bool { _, stopped := b.seen(); return len(stopped) == 1 }, time.Minute, time.Millisecond)
	_, stopped := b.seen()
	assert.Equal(t, []string{"w1: extensions did not end their work"}, stopped)
}
