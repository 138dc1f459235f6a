package traffic

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Line is one connection on which requests go that were written beforehand, one after the other. Its client costs next to nothing: what
// is measured through it is the server, where net/http's client takes as long as a fast one.
type Line struct {
	conn   net.Conn
	reader *bufio.Reader
	body   bytes.Buffer
	// last says that the server ends the connection with the answer that was read.
	last bool
	// Limit bounds the wait for an answer.
	Limit time.Duration
}

// Dialer connects; net.Dialer's DialContext is one.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// Open connects. Close ends it.
func Open(ctx context.Context, dial Dialer, addr string) (*Line, error) {
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Line{conn: conn, reader: bufio.NewReaderSize(conn, 16<<10), Limit: answerLimit}, nil
}

// Write is the text of a request, which need not be made for each sending.
func Write(r *http.Request) ([]byte, error) {
	var text bytes.Buffer
	if err := r.Write(&text); err != nil {
		return nil, fmt.Errorf("write a request: %w", err)
	}
	return text.Bytes(), nil
}

// Ask sends a request and reads the whole answer; the body is valid until the next one.
func (l *Line) Ask(request []byte) (status int, body []byte, err error) {
	if err := l.conn.SetDeadline(time.Now().Add(l.Limit)); err != nil {
		return 0, nil, err
	}
	if _, err := l.conn.Write(request); err != nil {
		return 0, nil, err
	}
	answer, err := http.ReadResponse(l.reader, nil)
	if err != nil {
		return 0, nil, err
	}
	l.body.Reset()
	_, err = l.body.ReadFrom(io.LimitReader(answer.Body, maxBody))
	_ = answer.Body.Close()
	l.last = answer.Close
	return answer.StatusCode, l.body.Bytes(), err
}

// Close ends the connection.
func (l *Line) Close() error { return l.conn.Close() }
