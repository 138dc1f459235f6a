package stack

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/handover"
	"github.com/edge-serverless-box/esb/guard/listen"
	"github.com/edge-serverless-box/esb/native"
)

// TestKeep_GatewayIsKilled_NobodyIsRefused: who connects meanwhile waits until it is started again.
func TestKeep_GatewayIsKilled_NobodyIsRefused(t *testing.T) {
	b := mustOpen(t)
	b.play("offers")
	k, _ := mustKeep(t, b)
	for range 3 {
		pid := b.pids(t)[1]
		require.Eventually(t, func() bool {
			k.held.mu.Lock()
			defer k.held.mu.Unlock()
			return k.held.held[native.Gateway] != nil && k.held.drops[native.Gateway] == nil
		}, waitLimit, time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for _, addr := range []string{b.settings.AdminAddr, b.settings.HTTPSAddrs[0]} {
			clients.Go(func() {
				for ctx.Err() == nil {
					c, err := net.Dial("tcp", addr)
					if !assert.NoError(t, err, addr) {
						return
					}
					_ = c.Close()
					time.Sleep(time.Millisecond)
				}
			})
		}
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		b.restarted(t, 1, pid)
		stop()
		clients.Wait()
	}
	// Whoever stops it means it.
	addr := b.settings.HTTPSAddrs[0]
	require.NoError(t, k.stop(nil))
	_, err := net.Dial("tcp", addr)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// TestHolder_ServiceDoesNotComeBack_ClientsAreRefused, and wait once more when it has.
func TestHolder_ServiceDoesNotComeBack_ClientsAreRefused(t *testing.T) {
	b := mustOpen(t)
	h := newHolder(b.Stack, slog.New(slog.DiscardHandler))
	defer h.close()
	home := b.settings.ServiceHome(native.Gateway)
	require.NoError(t, os.MkdirAll(home, 0o700))
	has := func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.held[native.Gateway] != nil
	}
	serve := func() (addr string, end func()) {
		l, err := listen.One(t.Context(), "A", "127.0.0.1:0")
		require.NoError(t, err)
		offer, err := handover.Open(home, func() map[string]net.Listener { return map[string]net.Listener{"A": l} }, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		h.serves(native.Gateway)
		require.Eventually(t, has, waitLimit, time.Millisecond)
		return l.Addr().String(), func() {
			require.NoError(t, offer.Close())
			require.NoError(t, l.Close())
			h.ended(native.Gateway)
		}
	}
	refused := func(addr string) bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}
	addr, end := serve()
	end()
	assert.False(t, refused(addr))
	h.limit = time.Millisecond
	addr, end = serve() // it serves again in time, somewhere else
	assert.False(t, refused(addr))
	end()
	require.Eventually(t, func() bool { return !has() }, waitLimit, time.Millisecond)
	assert.True(t, refused(addr))
	h.ended(native.Gateway)

	addr, end = serve()
	h.close()
	end()
	assert.True(t, refused(addr))
	h.serves(native.Gateway)
	h.ended(native.Gateway)
	assert.False(t, has())
}
