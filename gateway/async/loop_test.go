package async

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/lineage"
)

// runsOf is how often the functions of the test ran, all ids together.
func (f *fakeInvoker) runsOf() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, runs := range f.runs {
		n += len(runs)
	}
	return n
}

// functions.yml refuses such circles; a function that is changed while events wait may make one all the same.
func TestQueue_CircleOfDestinations_Ends(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	a := function("a", func(f *gateway.Function) { f.Async.OnSuccess = &gateway.Destination{Function: "b"} })
	b := function("b", func(f *gateway.Function) { f.Async.OnSuccess = &gateway.Destination{Function: "a"} })
	apply(q, a, b)
	enqueue(t, q, a, "r1", `{}`)
	eventually(t, "it ends", func() bool { return len(letters(t, q, "a"))+len(letters(t, q, "b")) == 1 })
	empty(t, q)
	assert.GreaterOrEqual(t, inv.runsOf(), 2*lineage.Most-1)
	assert.LessOrEqual(t, inv.runsOf(), 2*lineage.Most+4)
}

// again makes a function that invokes another by the Invoke API, as an SDK does: with its own trace header.
func again(q **Queue, to *gateway.Function, ids *atomic.Int64) func(context.Context, gateway.Invocation, int) (gateway.Result, error) {
	return func(ctx context.Context, inv gateway.Invocation, _ int) (gateway.Result, error) {
		err := (*q).Enqueue(ctx, to, gateway.Invocation{RequestID: fmt.Sprint(to.Name, ids.Add(1)), TraceID: inv.TraceID, Payload: []byte(`{"n":1}`)})
		return gateway.Result{Payload: []byte("1")}, err
	}
}

func TestQueue_FunctionThatInvokesItself_EndsAfter16Runs(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	var ids atomic.Int64
	f := function("f", func(f *gateway.Function) { f.Async.OnFailure = &gateway.Destination{Bucket: "records"} })
	inv.set("f", again(&q, f, &ids))
	apply(q, f)
	enqueue(t, q, f, "first", `{}`)
	eventually(t, "it ends", func() bool { return len(letters(t, q, "f")) == 1 })
	empty(t, q)
	assert.Equal(t, lineage.Most, inv.runsOf())
	l := letters(t, q, "f")[0]
	assert.Equal(t, "RecursiveInvocation", l.Condition)
	assert.Equal(t, http.StatusBadRequest, l.ErrorCode)
	assert.Contains(t, l.ErrorMessage, "recursive loop")
	assert.Zero(t, l.Invocations)
	objects := q.opts.Objects.(*fakeObjects).all()
	require.Len(t, objects, 1)
	for _, text := range objects {
		assert.Equal(t, map[string]any{"n": 1.0}, object(t, text)["requestPayload"])
		assert.NotContains(t, object(t, text), "responseContext")
	}

	// A replay begins a new chain.
	_, err := q.Replay(t.Context(), "f")
	require.NoError(t, err)
	eventually(t, "it ends again", func() bool { return len(letters(t, q, "f")) == 1 && inv.runsOf() > lineage.Most })
	empty(t, q)
	assert.Equal(t, 2*lineage.Most, inv.runsOf())
}

// The function that gets the record of a loop's end may invoke the loop again: that ends too.
func TestQueue_LoopOverOnFailure_Ends(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	var ids atomic.Int64
	f := function("f", func(f *gateway.Function) { f.Async.OnFailure = &gateway.Destination{Function: "repair"} })
	inv.set("f", again(&q, f, &ids))
	inv.set("repair", again(&q, f, &ids))
	apply(q, f, function("repair"))
	enqueue(t, q, f, "first", `{}`)
	eventually(t, "it ends", func() bool { return len(letters(t, q, "f")) == 2 })
	empty(t, q)
	assert.Equal(t, lineage.Most+1, inv.runsOf(), "f, and repair once")
}

func TestQueue_LoopThatIsAllowed_GoesOn(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	var ids atomic.Int64
	f := function("f", func(f *gateway.Function) { f.AllowLoops = true })
	inv.set("f", func(ctx context.Context, i gateway.Invocation, n int) (gateway.Result, error) {
		if ids.Load() >= 40 {
			return gateway.Result{Payload: []byte("1")}, nil
		}
		return again(&q, f, &ids)(ctx, i, n)
	})
	apply(q, f)
	enqueue(t, q, f, "first", `{}`)
	eventually(t, "it has ended by itself", func() bool { return inv.runsOf() == 41 })
	empty(t, q)
	assert.Empty(t, letters(t, q, "f"))
}
