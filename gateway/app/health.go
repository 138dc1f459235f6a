package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/edge-serverless-box/esb/gateway/settings"
)

// healthTimeout bounds one question for the health of a gateway.
const healthTimeout = 5 * time.Second

// Health asks the gateway that runs with these settings whether it is ready; nil means yes. Container health checks
// call it as `gateway health`, because the gateway's image has no other program in it.
func Health(ctx context.Context, getenv func(string) string) error {
	s, err := settings.Load(getenv)
	if err != nil {
		return err
	}
	if s.AdminAddr == "" {
		return errors.New("GATEWAY_ADMIN_ADDR: is off, so readiness cannot be asked for: give it an address")
	}
	return askReady(ctx, dialable(s.AdminAddr))
}

func askReady(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("GATEWAY_ADMIN_ADDR: %w", err)
	}
	// A transport of its own: the environment's proxy is not for an address of this machine.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("ask the gateway at %s whether it is ready: %w", addr, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("the gateway at %s is not ready: %s", addr, body)
	}
	return nil
}

// dialable turns a listener's address into one that can be dialled: no host, or an unspecified one, becomes
// 127.0.0.1.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
