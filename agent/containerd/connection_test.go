package containerd

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// versions is a containerd that says its version, and nothing else.
type versions struct {
	version.UnimplementedVersionServer
}

func (versions) Version(context.Context, *emptypb.Empty) (*version.VersionResponse, error) {
	return &version.VersionResponse{Version: "v2"}, nil
}

func mustServe(t *testing.T, socket string) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := grpc.NewServer()
	version.RegisterVersionServer(s, versions{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	return func() {
		s.Stop()
		assert.NoError(t, <-served)
	}
}

// TestLink_ContainerdRestarts_ACallWaitsForIt, and one that waits in vain is known to have found it away.
func TestLink_ContainerdRestarts_ACallWaitsForIt(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	stop := mustServe(t, socket)
	began := time.Now()
	l := &link{}
	c, err := client.New(socket, l.options())
	require.NoError(t, err)
	defer func() { assert.NoError(t, c.Close()) }()
	_, err = c.Version(t.Context())
	require.NoError(t, err)
	assert.False(t, l.lostSince(began))

	stop()
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = c.Version(short)
	require.Error(t, err)
	answered := make(chan error, 1)
	go func() {
		_, err := c.Version(t.Context())
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(300 * time.Millisecond): // a failed attempt or two
	}
	stop = mustServe(t, socket)
	defer stop()
	require.NoError(t, <-answered)
}

func TestLink_ContainerdStaysAway_ItIsKnown(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	require.NoError(t, err)
	listener.SetUnlinkOnClose(false) // as kill -9 leaves it
	require.NoError(t, listener.Close())
	l := &link{}
	c, err := client.New(socket, l.options())
	require.NoError(t, err)
	defer func() { assert.NoError(t, c.Close()) }()
	began := time.Now()
	_, err = c.Version(t.Context())
	require.Error(t, err)
	assert.True(t, l.lostSince(began))
	assert.False(t, l.lostSince(time.Now()))
}
