package logship

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// sendTimeout bounds one request to the store.
	sendTimeout = 30 * time.Second
	// answerBytes bounds what is read of the store's answer.
	answerBytes = 512
)

// store is VictoriaLogs.
type store struct {
	url            string
	user, password string
	client         *http.Client
}

func newStore(cfg Config) *store {
	query := url.Values{"_stream_fields": {"container_name,job"}, "_msg_field": {"message"}, "_time_field": {"time"}}
	return &store{
		url:  strings.TrimRight(cfg.URL, "/") + "/insert/jsonline?" + query.Encode(),
		user: cfg.User, password: cfg.Password,
		client: &http.Client{
			Timeout: sendTimeout,
			// The store is a part of the box: no proxy in between.
			Transport: &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute},
			// A redirected POST becomes a GET, whose 200 would mean nothing.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// send returns nil when the store has accepted the batch. Any other answer than success may go away, also a 4xx (a
// wrong port, a proxy, credentials): the caller sends the same batch again, and nothing is dropped for it.
func (s *store) send(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ship logs: %w", err)
	}
	// With a form's content type, VictoriaLogs answers 200 and stores nothing.
	req.Header.Set("Content-Type", "application/stream+json")
	if s.user != "" {
		req.SetBasicAuth(s.user, s.password)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("ship logs: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("ship logs: the store answered %d: %s", resp.StatusCode, bytes.TrimSpace(answer))
	}
	return nil
}

func (s *store) close() { s.client.CloseIdleConnections() }
