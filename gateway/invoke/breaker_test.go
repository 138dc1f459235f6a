package invoke

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errAgentDown = gateway.Errorf(gateway.CodeUnavailable, "agent down")

func mustRefuse(t *testing.T, i *Invoker, fn *gateway.Function) {
	t.Helper()
	require.Error(t, refusal(t, i, fn))
}

// refusal invokes, which must fail as CodeUnavailable.
func refusal(t *testing.T, i *Invoker, fn *gateway.Function) *gateway.Error {
	t.Helper()
	_, err := i.Invoke(t.Context(), fn, event)
	var e *gateway.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, gateway.CodeUnavailable, e.Code)
	return e
}

func TestBreaker_OpensAfterFailuresInARowAndLetsOneProbeThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{startErr: errAgentDown}, function()
		i := mustNew(t, b, fn)
		connect := make(chan struct{})
		says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true).pipe(i)
		dial := i.dial
		i.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			<-connect
			return dial(ctx, network, addr)
		}
		for range DefaultBreakerFailures {
			require.ErrorIs(t, refusal(t, i, fn), errAgentDown)
		}
		before, _ := b.seen()
		time.Sleep(4 * time.Second)
		e := refusal(t, i, fn)
		assert.Equal(t, 6*time.Second, e.RetryAfter, "the rest of the 10 s")
		starts, _ := b.seen()
		assert.Equal(t, before, starts, "an open circuit starts nothing")

		time.Sleep(7 * time.Second)
		require.ErrorIs(t, refusal(t, i, fn), errAgentDown) // the probe fails
		assert.Equal(t, 10*time.Second, refusal(t, i, fn).RetryAfter, "open again")

		time.Sleep(11 * time.Second)
		b.fail(nil)
		var probe sync.WaitGroup
		probe.Go(func() {
			_, err := i.Invoke(t.Context(), fn, event)
			assert.NoError(t, err)
		})
		synctest.Wait()
		mustRefuse(t, i, fn) // one probe at a time
		close(connect)
		probe.Wait()
		_, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err, "closed again")
	})
}

// TestBreaker_ProbePanics_LetsTheNextOneThrough: a probe that never reports would keep the circuit half open for ever.
func TestBreaker_ProbePanics_LetsTheNextOneThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{startErr: errAgentDown}, function()
		i := mustNew(t, b, fn)
		says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true).pipe(i)
		for range DefaultBreakerFailures {
			mustRefuse(t, i, fn)
		}
		time.Sleep(11 * time.Second)
		b.fail(nil)
		dial := i.dial
		i.dial = func(context.Context, string, string) (net.Conn, error) { panic("broken") }
		assert.PanicsWithValue(t, "broken", func() { _, _ = i.Invoke(t.Context(), fn, event) })
		i.dial = dial
		_, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err, "the next one is a probe")
	})
}

// TestBreaker_ProbeOfALongFunction_LetsOthersIn: the circuit is about the box, which is well when a worker is connected.
func TestBreaker_ProbeOfALongFunction_LetsOthersIn(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		code         gateway.Code
	}{
		{"it succeeds", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		{"its connection breaks", "", gateway.CodeTransport},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn := &box{startErr: errAgentDown}, function()
				fn.Timeout = 15 * time.Minute
				i := mustNew(t, b, fn)
				var first atomic.Bool
				w := &worker{handle: func(conn net.Conn, _ int, _ *http.Request, _ []byte) bool {
					answer := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
					if first.CompareAndSwap(false, true) {
						time.Sleep(10 * time.Minute) // a report, say
						answer = c.answer
					}
					_, err := io.WriteString(conn, answer)
					return err == nil && answer != ""
				}}
				w.pipe(i)
				for range DefaultBreakerFailures {
					require.ErrorIs(t, refusal(t, i, fn), errAgentDown)
				}
				b.fail(nil)
				time.Sleep(11 * time.Second)
				probe := make(chan error, 1)
				go func() {
					_, err := i.Invoke(context.Background(), fn, event)
					probe <- err
				}()
				synctest.Wait()
				for range 2 * DefaultBreakerFailures {
					_, err := i.Invoke(t.Context(), fn, event)
					require.NoError(t, err)
				}
				err := <-probe
				if c.code == "" {
					require.NoError(t, err)
				} else {
					require.Equal(t, c.code, gateway.ErrorCode(err))
				}
				_, err = i.Invoke(t.Context(), fn, event)
				require.NoError(t, err, "one failure of many does not open it")
			})
		})
	}
}

func TestBreaker_CountsTransportFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		says("", false).pipe(i)
		for range DefaultBreakerFailures {
			_, err := i.Invoke(t.Context(), fn, event)
			require.Equal(t, gateway.CodeTransport, gateway.ErrorCode(err))
		}
		mustRefuse(t, i, fn)
	})
}

func TestBreaker_DoesNotCountWhatIsNotTheBoxsFault(t *testing.T) {
	for name, invoke := range map[string]func(t *testing.T, i *Invoker, fn *gateway.Function){
		"function error": func(t *testing.T, i *Invoker, fn *gateway.Function) {
			says("HTTP/1.1 200 OK\r\nX-Amz-Function-Error: Unhandled\r\nX-Esb-Sandbox-Reset: exit\r\nContent-Length: 0\r\n\r\n", true).pipe(i)
			_, err := i.Invoke(t.Context(), fn, event)
			require.NoError(t, err)
		},
		"function timeout": func(t *testing.T, i *Invoker, fn *gateway.Function) {
			says(timeoutAnswer, true).pipe(i)
			res, err := i.Invoke(t.Context(), fn, event)
			require.NoError(t, err)
			require.True(t, res.TimedOut)
		},
		"function timeout, and no answer": func(t *testing.T, i *Invoker, fn *gateway.Function) {
			hangs().pipe(i)
			res, err := i.Invoke(t.Context(), fn, event)
			require.NoError(t, err)
			require.True(t, res.TimedOut)
		},
		"client left": func(t *testing.T, i *Invoker, fn *gateway.Function) {
			hangs().pipe(i)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := i.Invoke(ctx, fn, event)
			require.Equal(t, gateway.CodeIntegrationTimeout, gateway.ErrorCode(err))
		},
		"no worker in time": func(t *testing.T, i *Invoker, fn *gateway.Function) {
			hangs().pipe(i)
			full := *fn
			full.Scaling.MaxCapacity, full.Scaling.AcquireTimeout, full.Timeout = 1, time.Second, time.Minute
			i.pool.Apply(map[string]*gateway.Function{"f": &full})
			ctx, cancel := context.WithCancel(t.Context())
			var busy sync.WaitGroup
			busy.Go(func() { _, _ = i.Invoke(ctx, &full, event) })
			synctest.Wait()
			mustRefuse(t, i, &full)
			cancel()
			busy.Wait()
		},
		"code not known yet": func(t *testing.T, i *Invoker, fn *gateway.Function) {
			unknown := gateway.Errorf(gateway.CodeUnavailable, "its code has not been looked at yet")
			unknown.NotTried = true
			fails := &box{startErr: unknown}
			j := mustNew(t, fails, fn)
			for range 2 * DefaultBreakerFailures {
				require.ErrorIs(t, refusal(t, j, fn), unknown)
			}
			fails.fail(nil)
			says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true).pipe(j)
			_, err := j.Invoke(t.Context(), fn, event)
			require.NoError(t, err, "the circuit is closed")
		},
		"agent or containerd is coming back": func(t *testing.T, i *Invoker, fn *gateway.Function) {
			away := gateway.Errorf(gateway.CodeUnavailable, "containerd is coming back")
			away.Reason = reason.AgentAway
			fails := &box{startErr: away}
			j := mustNew(t, fails, fn)
			for range 2 * DefaultBreakerFailures {
				require.ErrorIs(t, refusal(t, j, fn), away)
			}
			fails.fail(nil)
			says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true).pipe(j)
			_, err := j.Invoke(t.Context(), fn, event)
			require.NoError(t, err, "the circuit is closed")
		},
		"throttled": func(t *testing.T, i *Invoker, fn *gateway.Function) {
			none := *fn
			none.Scaling.MaxCapacity = 0
			i.pool.Apply(map[string]*gateway.Function{"f": &none})
			_, err := i.Invoke(t.Context(), &none, event)
			require.Equal(t, gateway.CodeThrottled, gateway.ErrorCode(err))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn := &box{}, function()
				i := mustNew(t, b, fn)
				for range 3 * DefaultBreakerFailures {
					invoke(t, i, fn)
				}
				i.pool.Apply(map[string]*gateway.Function{"f": fn})
				says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true).pipe(i)
				_, err := i.Invoke(t.Context(), fn, event)
				require.NoError(t, err)
			})
		})
	}
}

func TestBreaker_OneFailedStart_CountsOnceHoweverManyWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{startErr: errAgentDown, hold: time.Second}, function()
		fn.Scaling.MaxCapacity, fn.Scaling.Queue = 1, 100
		i := mustNew(t, b, fn)
		var failed atomic.Int32
		var clients sync.WaitGroup
		for range 50 {
			clients.Go(func() {
				if _, err := i.Invoke(t.Context(), fn, event); err != nil {
					failed.Add(1)
				}
			})
		}
		clients.Wait()
		require.Equal(t, int32(50), failed.Load())
		b.fail(nil)
		says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true).pipe(i)
		_, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
	})
}

func TestBreaker_NewGeneration_BeginsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{startErr: errAgentDown}, function()
		i := mustNew(t, b, fn)
		for range DefaultBreakerFailures {
			mustRefuse(t, i, fn)
		}
		before, _ := b.seen()
		mustRefuse(t, i, fn)
		next := *fn
		next.Generation = "g2"
		i.pool.Apply(map[string]*gateway.Function{"f": &next})
		mustRefuse(t, i, fn)
		starts, _ := b.seen()
		assert.Equal(t, before+1, starts, "the new configuration is tried, or new code, of which the route's function says nothing")
	})
}

// TestBreaker_OpenForAPermanentCause_SaysSo: a client must not try a missing image again because the circuit is open meanwhile.
func TestBreaker_OpenForAPermanentCause_SaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{}, function()
		missing := gateway.Errorf(gateway.CodeUnavailable, "no image")
		missing.Reason, missing.Permanent = reason.ImageMissing, true
		b.fail(missing)
		i := mustNew(t, b, fn)
		var known *gateway.Error
		for range 2 * DefaultBreakerFailures {
			_, err := i.Invoke(t.Context(), fn, event)
			require.ErrorAs(t, err, &known)
			assert.Equal(t, reason.ImageMissing, known.Reason, "%v", err)
			assert.True(t, known.Permanent)
			time.Sleep(100 * time.Millisecond)
		}
		assert.ErrorContains(t, known, "circuit breaker")
	})
}
