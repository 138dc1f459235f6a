package async

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// patience is for what must happen, however slow the machine.
const patience = 60 * time.Second

// fakeInvoker runs functions of the test and counts by request id.
type fakeInvoker struct {
	mu   sync.Mutex
	runs map[string][]gateway.Invocation
	do   map[string]func(ctx context.Context, inv gateway.Invocation, n int) (gateway.Result, error)
}

func (f *fakeInvoker) Invoke(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
	f.mu.Lock()
	f.runs[inv.RequestID] = append(f.runs[inv.RequestID], inv)
	n, do := len(f.runs[inv.RequestID]), f.do[fn.Name]
	f.mu.Unlock()
	if do == nil {
		return gateway.Result{Payload: []byte(`"ok"`)}, nil
	}
	return do(ctx, inv, n)
}

func (f *fakeInvoker) ran(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.runs[id])
}

func (f *fakeInvoker) set(function string, do func(ctx context.Context, inv gateway.Invocation, n int) (gateway.Result, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.do[function] = do
}

func newInvoker() *fakeInvoker {
	return &fakeInvoker{runs: map[string][]gateway.Invocation{}, do: map[string]func(context.Context, gateway.Invocation, int) (gateway.Result, error){}}
}

func fails(context.Context, gateway.Invocation, int) (gateway.Result, error) {
	return gateway.Result{Payload: []byte(`{"errorMessage":"no luck","errorType":"Bad"}`), FunctionError: "Unhandled"}, nil
}

// fakeObjects keeps objects in memory, or fails.
type fakeObjects struct {
	mu      sync.Mutex
	objects map[string][]byte
	err     error
}

func (f *fakeObjects) Put(_ context.Context, bucket, key string, body []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.objects[bucket+"/"+key] = body
	return nil
}

func (f *fakeObjects) all() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string]string)
	for k, v := range f.objects {
		all[k] = string(v)
	}
	return all
}

func options(dir string, inv Invoker) Options {
	return Options{
		Dir: dir, Prefix: "esb-async", MaxBytes: 64 << 20, DeadMaxBytes: 16 << 20, RetryBase: 20 * time.Millisecond,
		Region: "us-east-1", AccountID: "123456789012", Invoker: inv, Objects: &fakeObjects{objects: map[string][]byte{}},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func mustOpen(t *testing.T, opts Options) *Queue {
	t.Helper()
	q, err := Open(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { mustClose(t, q) })
	return q
}

// mustClose breaks off what is in flight.
func mustClose(t *testing.T, q *Queue) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, q.Close(ctx))
}

func function(name string, change ...func(*gateway.Function)) *gateway.Function {
	f := &gateway.Function{
		Name: name, Timeout: 3 * time.Second, Scaling: gateway.Scaling{MaxCapacity: 4},
		Async: gateway.Async{Retries: 2, MaxAge: gateway.MaxAsyncAge, DeadLetter: true},
	}
	for _, c := range change {
		c(f)
	}
	return f
}

func apply(q *Queue, functions ...*gateway.Function) {
	m := map[string]*gateway.Function{}
	for _, f := range functions {
		m[f.Name] = f
	}
	q.Apply(m)
}

func enqueue(t *testing.T, q *Queue, fn *gateway.Function, id, payload string) {
	t.Helper()
	require.NoError(t, q.Enqueue(t.Context(), fn, gateway.Invocation{RequestID: id, TraceID: "Root=1-2-3", ClientContext: "e30=", Qualifier: "$LATEST", Payload: []byte(payload)}))
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 5*time.Millisecond, what)
}

// stateOf is what waits for a function.
func stateOf(t *testing.T, q *Queue, name string) FunctionState {
	t.Helper()
	states, err := q.States(t.Context())
	require.NoError(t, err)
	for _, s := range states {
		if s.Function == name {
			return s
		}
	}
	return FunctionState{Function: name}
}

// empty waits until nothing is left of a function's events but dead letters, in the index and in the streams.
func empty(t *testing.T, q *Queue) {
	t.Helper()
	eventually(t, "streams empty", func() bool {
		for i := range shards {
			info, err := q.store.shard(i).Info(t.Context())
			if err != nil || info.State.Msgs != 0 {
				return false
			}
		}
		return q.bytes.Load() == 0
	})
}

func letters(t *testing.T, q *Queue, name string) []Letter {
	t.Helper()
	l, next, err := q.Letters(t.Context(), name, 0, 1000)
	require.NoError(t, err)
	require.Zero(t, next)
	return l
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &m), text)
	return m
}
