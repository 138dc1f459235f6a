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

	"github.com/edge-serverless-box/esb/guard/secretfile"
)

const (
	// sendTimeout bounds one request to the store.
	sendTimeout = 30 * time.Second
	// answerBytes bounds what is read of the store's answer.
	answerBytes = 512
)

// Store is VictoriaLogs.
type Store struct {
	url                          string
	user, password, passwordFile string
	client                       *http.Client
}

// NewStore returns the store of cfg's URL, User, Password and PasswordFile.
func NewStore(cfg Config) *Store {
	query := url.Values{"_stream_fields": {"container_name,job"}, "_msg_field": {"message"}, "_time_field": {"time"}}
	return &Store{
		url:  strings.TrimRight(cfg.URL, "/") + "/insert/jsonline?" + query.Encode(),
		user: cfg.User, password: cfg.Password, passwordFile: cfg.PasswordFile,
		client: &http.Client{
			Timeout: sendTimeout,
			// The store is a part of the box: no proxy in between.
			Transport: &http.Transport{MaxIdleConns: 4, IdleConnTimeout: time.Minute},
			// A redirected POST becomes a GET, whose 200 would mean nothing.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Send returns nil when the store has accepted the batch. Any other answer than success may go away, also a 4xx (a
// wrong port, a proxy, credentials): the caller sends the same batch again, and nothing is dropped for it.
func (s *Store) Send(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ship logs: %w", err)
	}
	// With a form's content type, VictoriaLogs answers 200 and stores nothing.
	req.Header.Set("Content-Type", "application/stream+json")
	if s.user != "" {
		password := s.password
		if password == "" && s.passwordFile != "" {
			// Read anew, because it is the store that makes it, which may come later.
			if password, err = secretfile.Read(s.passwordFile); err != nil {
				return fmt.Errorf("ship logs: VICTORIALOGS_PASSWORD_FILE: %w", err)
			}
		}
		req.SetBasicAuth(s.user, password)
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

// Close closes connections that nothing is sent on.
func (s *Store) Close() { s.client.CloseIdleConnections() }
