package handover_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/handover"
)

func mustListen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustOffer(t *testing.T, home string, sockets map[string]net.Listener) *handover.Offer {
	t.Helper()
	o, err := handover.Open(home, func() map[string]net.Listener { return sockets }, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return o
}

// A client that connects while neither listens is served by the one that comes.
func TestHandover(t *testing.T) {
	home := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	require.NoError(t, os.Mkdir(home, 0o700))
	first, other := mustListen(t), mustListen(t)
	offer := mustOffer(t, home, map[string]net.Listener{"a": first, "b": other})

	next, err := handover.Ask(t.Context(), home)
	require.NoError(t, err)
	require.NotNil(t, next)
	taken := next.Socket("a")
	require.NotNil(t, taken)
	defer func() { _ = taken.Close() }()
	assert.Equal(t, first.Addr(), taken.Addr())
	assert.Nil(t, next.Socket("a"), "it is taken")
	assert.Nil(t, next.Socket("c"))
	select {
	case <-offer.Asked():
		t.Fatal("it goes on until it is asked to end")
	default:
	}

	ended := make(chan error)
	go func() { ended <- next.End(t.Context()) }()
	<-offer.Asked()
	require.NoError(t, first.Close())
	require.NoError(t, other.Close())
	client, err := net.Dial("tcp", first.Addr().String())
	require.NoError(t, err, "nobody is refused")
	defer func() { _ = client.Close() }()
	select {
	case err := <-ended:
		t.Fatal("it has not ended yet: ", err)
	default:
	}
	require.NoError(t, offer.Close())
	require.NoError(t, <-ended)
	served, err := taken.Accept()
	require.NoError(t, err)
	_, err = io.WriteString(served, "x")
	require.NoError(t, err)
	_, err = io.ReadFull(client, make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, served.Close())
	_, err = net.Dial("tcp", other.Addr().String())
	assert.Error(t, err, "what the next one has no use for is closed")
}

func TestHandover_NextOneThatDoesNotStart_ChangesNothing(t *testing.T) {
	home := t.TempDir()
	l := mustListen(t)
	offer := mustOffer(t, home, map[string]net.Listener{"a": l})
	for range 3 {
		next, err := handover.Ask(t.Context(), home)
		require.NoError(t, err)
		require.NoError(t, next.Close())
	}
	select {
	case <-offer.Asked():
		t.Fatal("nobody has asked it to end")
	default:
	}
	client, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	served, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, served.Close())
	require.NoError(t, client.Close())
	require.NoError(t, offer.Close())
}

func TestAsk_NobodyThere(t *testing.T) {
	for _, home := range []string{t.TempDir(), filepath.Join(t.TempDir(), "nothing")} {
		next, err := handover.Ask(t.Context(), home)
		require.NoError(t, err)
		assert.Nil(t, next)
		assert.Nil(t, next.Socket("a"))
		assert.NoError(t, next.End(t.Context()))
		assert.NoError(t, next.Close())
	}
	// One that was killed has left its socket.
	home := t.TempDir()
	left, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: filepath.Join(home, "handover")})
	require.NoError(t, err)
	left.SetUnlinkOnClose(false)
	require.NoError(t, left.Close())
	next, err := handover.Ask(t.Context(), home)
	require.NoError(t, err)
	assert.Nil(t, next)
	held, err := handover.Hold(t.Context(), home)
	require.NoError(t, err)
	assert.Nil(t, held)
	assert.False(t, handover.Offered(t.Context(), home))
	offer := mustOffer(t, home, nil)
	assert.True(t, handover.Offered(t.Context(), home))
	require.NoError(t, offer.Close())
	assert.False(t, handover.Offered(t.Context(), home))
}

func TestEnd_OfOneThatDoesNotEnd(t *testing.T) {
	home := t.TempDir()
	offer := mustOffer(t, home, map[string]net.Listener{"a": mustListen(t)})
	next, err := handover.Ask(t.Context(), home)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-offer.Asked()
		cancel()
	}()
	require.ErrorIs(t, next.End(ctx), context.Canceled)
	require.NoError(t, next.Close())
	require.NoError(t, offer.Close())
}

func TestOffer_Nil_IsNeverAsked(t *testing.T) {
	var offer *handover.Offer
	assert.Nil(t, offer.Asked())
}

// Who owns the folder of a service cannot have root ask another service by a link there.
func TestHold_OfferOfAnotherUser_IsNotAsked(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: a folder is given to another user")
	}
	store, gateway := t.TempDir(), t.TempDir()
	mustOffer(t, store, map[string]net.Listener{"a": mustListen(t)})
	require.NoError(t, os.Symlink(filepath.Join(store, "handover"), filepath.Join(gateway, "handover")))
	require.NoError(t, os.Chown(gateway, 12345, 12345))
	held, err := handover.Hold(t.Context(), gateway)
	require.ErrorContains(t, err, "user 12345's")
	assert.Nil(t, held)
}

// TestHeld_ServiceIsGone_ClientsWaitForTheNextOne, which inherits its sockets.
func TestHeld_ServiceIsGone_ClientsWaitForTheNextOne(t *testing.T) {
	home := t.TempDir()
	socket := mustListen(t)
	name := "ADDR=" + socket.Addr().String()
	offer := mustOffer(t, home, map[string]net.Listener{name: socket})
	held, err := handover.Hold(t.Context(), home)
	require.NoError(t, err)
	require.NoError(t, offer.Close())
	require.NoError(t, socket.Close())
	early, err := net.Dial("tcp", socket.Addr().String())
	require.NoError(t, err)
	defer func() { _ = early.Close() }()
	names, files, err := held.Files()
	require.NoError(t, err)
	fd, err := unix.Dup(int(files[0].Fd())) // as the next process has it
	require.NoError(t, err)
	require.NoError(t, files[0].Close())
	text, err := handover.Describe(fd, names)
	require.NoError(t, err)
	next, err := handover.Inherited(text)
	require.NoError(t, err)
	assert.False(t, next.Runs())
	l := next.Socket(name)
	require.NotNil(t, l)
	held.Close()
	c, err := l.Accept()
	require.NoError(t, err)
	assert.Equal(t, early.LocalAddr(), c.RemoteAddr())
	require.NoError(t, c.Close())
	require.NoError(t, next.End(t.Context()))
	require.NoError(t, l.Close())
	_, err = net.Dial("tcp", socket.Addr().String())
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "nobody has it any more")
}

func TestInherited_WhatIsNoSocket_IsAnError(t *testing.T) {
	none, err := handover.Inherited("")
	require.NoError(t, err)
	assert.Nil(t, none)
	assert.False(t, none.Runs())
	for _, text := range []string{"noise", `{"A":1}`, `{"A":12345}`} {
		_, err := handover.Inherited(text)
		assert.Error(t, err, text)
	}
}
