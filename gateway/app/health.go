package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/edge-serverless-box/esb/gateway/settings"
	"github.com/edge-serverless-box/esb/guard/hung"
	"github.com/edge-serverless-box/esb/guard/secretfile"
)

// healthTimeout bounds one question for the health of a gateway.
const healthTimeout = 5 * time.Second

// Health asks the gateway that runs with these settings whether it is ready; nil means yes. Container health checks
// call it as `gateway health`, because the gateway's image has no other program in it. An error that is hung.ErrSilent means that it
// does not even answer.
func Health(ctx context.Context, getenv func(string) string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	resp, err := askAdmin(ctx, getenv, http.MethodGet, "/readyz")
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("the gateway at %s is not ready: %s", resp.Request.URL.Host, body)
	}
	return nil
}

// Admin asks the admin listener of the gateway that runs with these settings, as its operator, and prints the answer. A
// status from 400 is an error.
func Admin(ctx context.Context, getenv func(string) string, method, path string, out io.Writer) error {
	resp, err := askAdmin(ctx, getenv, method, path)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

func askAdmin(ctx context.Context, getenv func(string) string, method, path string) (*http.Response, error) {
	s, err := settings.Load(getenv)
	if err != nil {
		return nil, err
	}
	if s.AdminAddr == "" {
		return nil, errors.New("GATEWAY_ADMIN_ADDR: is off, so the gateway cannot be asked: give it an address")
	}
	addr := dialable(s.AdminAddr)
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, nil)
	if err != nil {
		return nil, fmt.Errorf("GATEWAY_ADMIN_ADDR: %w", err)
	}
	// Without the token, which the gateway has not made before its first start, the answers say less.
	token, err := secretfile.Read(s.AdminTokenFile())
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+token)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// A transport of its own: the environment's proxy is not for an address of this machine.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway at %s: %w (%w)", addr, err, hung.ErrSilent)
	}
	return resp, nil
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
