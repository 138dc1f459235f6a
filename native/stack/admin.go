package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/native/settings"
)

// gatewayReady asks the gateway whether it is ready; the error says why it is not.
func (s *Stack) gatewayReady(ctx context.Context) error {
	req, err := s.adminRequest(ctx, http.MethodGet, "/readyz")
	if err != nil {
		return err
	}
	return answersOK(req, "the gateway")
}

// Admin asks the gateway's admin listener as the operator, and prints the answer. A status from 400 is an error. The token
// is in no command line, which every user of the machine can read.
func (s *Stack) Admin(ctx context.Context, method, path string, out io.Writer) error {
	req, err := s.adminRequest(ctx, method, path)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return fmt.Errorf("ask the gateway, which `esb status` may tell about: %w", err)
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

// adminRequest is a request to the gateway's admin listener, with the operator's token.
func (s *Stack) adminRequest(ctx context.Context, method, path string) (*http.Request, error) {
	token, err := secretfile.Read(s.settings.AdminTokenFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the gateway has not been started yet: there is no %s", s.settings.AdminTokenFile())
	}
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+settings.Reachable(s.settings.AdminAddr)+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return req, nil
}
