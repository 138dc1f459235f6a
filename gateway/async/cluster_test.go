package async

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// mustServe runs a NATS server with JetStream that asks for a user.
func mustServe(t *testing.T, addr, dir string, change ...func(*server.Options)) *server.Server {
	t.Helper()
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	require.NoError(t, err)
	o := &server.Options{Host: "127.0.0.1", Port: tcp.Port, JetStream: true, StoreDir: dir, SyncAlways: true, MaxPayload: maxMessage, NoSigs: true, Username: "box", Password: "hush"}
	for _, c := range change {
		c(o)
	}
	s, err := server.NewServer(o)
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(patience))
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestOpen_Cluster_IsUsedWhenItIsThere_AndAfterItWasAway(t *testing.T) {
	addr, dir := freeAddr(t), t.TempDir()
	inv := newInvoker()
	inv.set("bad", fails)
	opts := options(filepath.Join(t.TempDir(), "unused"), inv)
	opts.URL = "nats://box:hush@" + addr
	q := mustOpen(t, opts)
	f, bad := function("f"), function("bad", func(f *gateway.Function) { f.Async.Retries = 0 })
	apply(q, f, bad)
	event := gateway.Invocation{RequestID: "early", Payload: []byte("{}")}
	assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(q.Enqueue(t.Context(), f, event)))
	assert.Error(t, q.Check(t.Context()))
	_, err := q.States(t.Context())
	assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))

	s := mustServe(t, addr, dir)
	eventually(t, "the queue is open", func() bool { return q.Check(t.Context()) == nil })
	enqueue(t, q, f, "r1", `{}`)
	enqueue(t, q, bad, "b1", `{}`)
	empty(t, q)
	assert.Equal(t, 1, inv.ran("r1"))
	assert.Len(t, letters(t, q, "bad"), 1)

	s.Shutdown()
	s.WaitForShutdown()
	eventually(t, "the loss is noticed", func() bool { return q.Check(t.Context()) != nil })
	mustServe(t, addr, dir)
	eventually(t, "connected again", func() bool { return q.Check(t.Context()) == nil })
	eventually(t, "an event is taken", func() bool {
		return q.Enqueue(t.Context(), f, gateway.Invocation{RequestID: "r2", Payload: []byte("{}")}) == nil
	})
	eventually(t, "it runs", func() bool { return inv.ran("r2") > 0 })
	assert.Len(t, letters(t, q, "bad"), 1)
	assert.NoFileExists(t, opts.Dir, "nothing is kept here")
}

func TestOpen_ClusterWithSmallMessages_SaysSo(t *testing.T) {
	addr := freeAddr(t)
	mustServe(t, addr, t.TempDir(), func(o *server.Options) { o.MaxPayload = 1 << 20 })
	opts := options("", newInvoker())
	opts.URL = "nats://box:hush@" + addr
	q := mustOpen(t, opts)
	eventually(t, "the reason is told", func() bool {
		err := q.Check(t.Context())
		return err != nil && strings.Contains(err.Error(), "max_payload")
	})
}

// JetStream closes down on a full disk. It comes back by itself, and what was in the queue runs.
func TestQueue_JetStreamClosedDown_ComesBack(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f")
	apply(q)
	enqueue(t, q, f, "before", `{}`)
	require.NoError(t, q.store.server.Load().ShutdownJetStream())
	assert.ErrorContains(t, q.Check(t.Context()), "JetStream has closed down")
	assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(q.Enqueue(t.Context(), f, gateway.Invocation{RequestID: "x", Payload: []byte("{}")})))
	eventually(t, "back", func() bool { return q.Check(t.Context()) == nil })
	eventually(t, "an event is taken", func() bool {
		return q.Enqueue(t.Context(), f, gateway.Invocation{RequestID: "after", Payload: []byte("{}")}) == nil
	})
	apply(q, f)
	eventually(t, "both run", func() bool { return inv.ran("before") == 1 && inv.ran("after") >= 1 })
	empty(t, q)
}

func TestOpen_FolderThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(t.Context(), options(filepath.Join(file, "async"), newInvoker()))
	assert.ErrorContains(t, err, "make the folder of the queue")
}
