package invoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/guard/budget"
)

// works answers after d with a result of size bytes, for as long as its connection is there.
func works(d time.Duration, size int) *worker {
	return &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
		time.Sleep(d)
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(size)+"\r\n\r\n"+strings.Repeat("x", size))
		return err == nil
	}}
}

// TestInvoke_CallerLeaves_TheFunctionRunsToItsEnd: AWS does not stop a function whose caller has left, or whose API Gateway has
// answered 504.
func TestInvoke_CallerLeaves_TheFunctionRunsToItsEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		kind  gateway.RuntimeInterface
		route time.Duration
		size  int
		code  gateway.Code
	}{
		"client leaves":                 {code: gateway.CodeCanceled},
		"route timeout":                 {route: time.Second, code: gateway.CodeIntegrationTimeout},
		"large answer":                  {size: 1 << 20, code: gateway.CodeCanceled},
		"rie":                           {kind: gateway.RIE, code: gateway.CodeCanceled},
		"rie, route timeout":            {kind: gateway.RIE, route: time.Second, code: gateway.CodeIntegrationTimeout},
		"large answer of a late worker": {route: time.Second, size: 5 << 20, code: gateway.CodeIntegrationTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn, w := &box{kind: tc.kind}, function(), works(2*time.Second, tc.size)
				fn.Name = name
				before := testutil.ToFloat64(outlived.WithLabelValues(name, "ok"))
				i := mustNew(t, b, fn)
				w.pipe(i)
				memory := budget.New(64 << 20)
				claim := memory.Claim("a")
				require.NoError(t, claim.Grow(1<<10))
				inv := event
				inv.Memory = &claim
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.route > 0 {
					ctx, cancel = context.WithTimeout(ctx, tc.route)
					defer cancel()
				} else {
					time.AfterFunc(time.Second, cancel)
				}
				began := time.Now()
				_, err := i.Invoke(ctx, fn, inv)
				assert.Equal(t, tc.code, gateway.ErrorCode(err))
				assert.Equal(t, time.Second, time.Since(began), "the caller waits no longer")
				claim.Release()

				synctest.Wait()
				idle, busy, stopping := states(i)
				assert.Equal(t, []int{0, 1, 0}, []int{idle, busy, stopping}, "the slot is the function's until it ends")
				time.Sleep(time.Second)
				synctest.Wait()
				idle, busy, stopping = states(i)
				assert.Equal(t, []int{1, 0, 0}, []int{idle, busy, stopping}, "and the worker serves again")
				assert.Zero(t, memory.Used(), "nothing is held for an answer that nobody takes")
				assert.InDelta(t, before+1, testutil.ToFloat64(outlived.WithLabelValues(name, "ok")), 0)

				res, err := i.Invoke(t.Context(), fn, event)
				require.NoError(t, err)
				assert.Len(t, res.Payload, tc.size, "each gets its own answer")
				starts, stopped := b.seen()
				dials, requests := w.seen()
				assert.Equal(t, []int{1, 1, 2}, []int{starts, dials, requests})
				assert.Empty(t, stopped)
			})
		})
	}
}

func TestInvoke_CallerLeaves_TheFunctionsOwnTimeoutHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		hangs().pipe(i)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := i.Invoke(ctx, fn, event)
		require.Equal(t, gateway.CodeIntegrationTimeout, gateway.ErrorCode(err))
		time.Sleep(18 * time.Second)
		synctest.Wait()
		_, stopped := b.seen()
		assert.Empty(t, stopped, "3 s, 10 s of an init, 7 s of margin")
		time.Sleep(time.Second)
		synctest.Wait()
		_, stopped = b.seen()
		assert.Equal(t, []string{"w1: function timeout, and no answer from the worker"}, stopped)
	})
}

// TestInvoke_CallerLeaves_AFunctionThatTimesOutKeepsItsWorker: what lambda-init has reset serves the next, whoever still waited.
func TestInvoke_CallerLeaves_AFunctionThatTimesOutKeepsItsWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		w := &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
			time.Sleep(3 * time.Second)
			_, err := io.WriteString(c, timeoutAnswer)
			return err == nil
		}}
		w.pipe(i)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := i.Invoke(ctx, fn, event)
		require.Equal(t, gateway.CodeIntegrationTimeout, gateway.ErrorCode(err))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		res, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		assert.True(t, res.TimedOut)
		starts, stopped := b.seen()
		assert.Equal(t, 1, starts)
		assert.Empty(t, stopped)
	})
}

func TestInvoke_CallerLeaves_AWorkerThatBreaksIsCondemned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		w := &worker{handle: func(net.Conn, int, *http.Request, []byte) bool {
			time.Sleep(2 * time.Second)
			return false
		}}
		w.pipe(i)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = i.Invoke(ctx, fn, event)
		time.Sleep(time.Second)
		synctest.Wait()
		_, stopped := b.seen()
		assert.Len(t, stopped, 1)
	})
}

// TestInvoke_CallersLeave_BeforeAWorkerIsFree: who only waits in the queue leaves it.
func TestInvoke_CallersLeave_BeforeAWorkerIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn, w := &box{}, function(), works(2*time.Second, 0)
		fn.Scaling.MaxCapacity = 1
		i := mustNew(t, b, fn)
		w.pipe(i)
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, err := i.Invoke(ctx, fn, event)
			assert.Equal(t, gateway.CodeIntegrationTimeout, gateway.ErrorCode(err))
			cancel()
		}
		_, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		_, requests := w.seen()
		assert.Equal(t, 2, requests, "the first, and the one that waited")
	})
}

// TestInvoke_PoolCloses_EndsWhatOutlivedItsCaller: the gateway's stop waits for it as long as for requests, and no longer.
func TestInvoke_PoolCloses_EndsWhatOutlivedItsCaller(t *testing.T) {
	for name, tc := range map[string]struct {
		grace, after time.Duration
	}{
		"in time":         {grace: 10 * time.Second, after: time.Second},
		"out of time":     {grace: 500 * time.Millisecond, after: 500 * time.Millisecond},
		"no grace at all": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn := &box{}, function()
				i := mustNew(t, b, fn)
				works(2*time.Second, 0).pipe(i)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := i.Invoke(ctx, fn, event)
				require.Error(t, err)
				began := time.Now()
				ctx, cancel = context.WithTimeout(t.Context(), tc.grace)
				defer cancel()
				require.NoError(t, i.pool.Close(ctx))
				i.Wait()
				assert.Equal(t, tc.after, time.Since(began))
				time.Sleep(2 * time.Second) // the worker of this test has an end of its own
			})
		})
	}
}

// TestInvoke_Deadline_IsWhatTheFunctionHas: getRemainingTimeInMillis never promises time that will not be given.
func TestInvoke_Deadline_IsWhatTheFunctionHas(t *testing.T) {
	for name, tc := range map[string]struct {
		setting, tied bool
		want          time.Duration
	}{
		"runs to its end":                {want: 3 * time.Second},
		"ends with its caller":           {tied: true, want: time.Second},
		"every one ends with its caller": {setting: true, want: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told string
				w := &worker{handle: func(c net.Conn, _ int, r *http.Request, _ []byte) bool {
					told = r.Header.Get("Lambda-Runtime-Deadline-Ms")
					// As lambda-init does at the deadline that it was told.
					time.Sleep(tc.want - time.Millisecond)
					_, err := io.WriteString(c, timeoutAnswer)
					return err == nil
				}}
				b, fn := &box{hold: 500 * time.Millisecond}, function()
				i := mustNew(t, b, fn)
				i.opts.EndWithCaller = tc.setting
				w.pipe(i)
				// The wait for the worker is not counted in what the function has, but in what the route has.
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				began := time.Now()
				inv := event
				inv.EndsWithCaller = tc.tied
				_, err := i.Invoke(ctx, fn, inv)
				assert.Equal(t, gateway.CodeIntegrationTimeout, gateway.ErrorCode(err), "%v", err)
				synctest.Wait()
				assert.Equal(t, strconv.FormatInt(began.Add(500*time.Millisecond+tc.want).UnixMilli(), 10), told)
			})
		})
	}
}

func TestInvokeStream_CallerLeaves_TheFunctionRunsToItsEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		route    time.Duration
		writeErr error
		code     gateway.Code
	}{
		"client leaves":           {code: gateway.CodeCanceled},
		"route timeout":           {route: time.Second, code: gateway.CodeIntegrationTimeout},
		"client does not take it": {writeErr: errors.New("broken pipe"), code: gateway.CodeCanceled},
		"the prelude is not good": {writeErr: gateway.Errorf(gateway.CodeFunction, "a bad prelude"), code: gateway.CodeFunction},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const pieces = 20
				whole := 0
				w := &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
					if _, err := io.WriteString(c, streamHead); err != nil {
						return false
					}
					for range pieces {
						if _, err := fmt.Fprintf(c, "1000\r\n%s\r\n", strings.Repeat("x", 0x1000)); err != nil {
							return false
						}
						time.Sleep(100 * time.Millisecond)
					}
					_, err := io.WriteString(c, streamEnd)
					if err == nil {
						whole++
					}
					return err == nil
				}}
				b, fn := &box{}, function()
				fn.Name = name
				before := testutil.ToFloat64(outlived.WithLabelValues(name, "ok"))
				i := mustNew(t, b, fn)
				w.pipe(i)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				to := &caller{writeErr: tc.writeErr}
				switch {
				case tc.route > 0:
					ctx, cancel = context.WithTimeout(ctx, tc.route)
					defer cancel()
				case tc.writeErr == nil:
					time.AfterFunc(time.Second, cancel)
				}
				_, err := i.InvokeStream(ctx, fn, event, to)
				assert.Equal(t, tc.code, gateway.ErrorCode(err), "%v", err)
				got := to.got.Len()
				assert.Less(t, got, pieces*0x1000)
				synctest.Wait()
				_, busy, _ := states(i)
				assert.Equal(t, 1, busy)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				assert.Equal(t, 1, whole, "it came to its end")
				assert.Equal(t, got, to.got.Len(), "nothing is written to one that has left")
				assert.InDelta(t, before+1, testutil.ToFloat64(outlived.WithLabelValues(name, "ok")), 0)

				next := &caller{}
				_, err = i.InvokeStream(t.Context(), fn, event, next)
				require.NoError(t, err)
				assert.Equal(t, pieces*0x1000, next.got.Len())
				starts, stopped := b.seen()
				dials, _ := w.seen()
				assert.Equal(t, []int{1, 1}, []int{starts, dials})
				assert.Empty(t, stopped)
			})
		})
	}
}

// TestInvoke_ManyLeaveAtAnyMoment_NothingIsLost: whenever they leave, every slot comes back, with its worker.
func TestInvoke_ManyLeaveAtAnyMoment_NothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn, w := &box{}, function(), works(5*time.Millisecond, 10)
		i := mustNew(t, b, fn)
		w.pipe(i)
		for n := range 400 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Duration(n%12)*500*time.Microsecond+time.Duration(n), cancel)
			res, err := i.Invoke(ctx, fn, event)
			if err == nil {
				assert.Equal(t, strings.Repeat("x", 10), string(res.Payload))
			} else {
				assert.Equal(t, gateway.CodeCanceled, gateway.ErrorCode(err))
			}
			cancel()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		starts, stopped := b.seen()
		idle, busy, _ := states(i)
		assert.Equal(t, starts, idle)
		assert.Zero(t, busy)
		assert.Empty(t, stopped)
	})
}
