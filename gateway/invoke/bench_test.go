package invoke

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// The two benchmarks send the same request to the same worker: through breaker, pool and link, and by net/http alone.
// cpu-us/op is the processor time of client and worker together, which does not depend on how busy the machine is.

func benchWorker() *worker {
	return &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Amzn-Requestid: req-1\r\nContent-Length: 16\r\n\r\n{\"success\":true}")
		return err == nil
	}}
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkInvoke_Warm(b *testing.B) {
	fn := function()
	i := mustNew(b, &box{addr: benchWorker().mustListen(b)}, fn)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	inv := gateway.Invocation{RequestID: "req-1", TraceID: event.TraceID, Payload: bytes.Repeat([]byte("x"), 1024)}
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	for range b.N {
		if _, err := i.Invoke(ctx, fn, inv); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-us/op")
}

func BenchmarkNetHTTP_Warm(b *testing.B) {
	url := "http://" + benchWorker().mustListen(b) + "/2015-03-31/functions/function/invocations"
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	payload := bytes.Repeat([]byte("x"), 1024)
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	for range b.N {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(payload))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("X-Amzn-RequestId", "req-1")
		r.Header.Set("X-Amzn-Trace-Id", event.TraceID)
		res, err := client.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadAll(res.Body); err != nil {
			b.Fatal(err)
		}
		_ = res.Body.Close()
	}
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-us/op")
}
