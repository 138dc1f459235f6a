package http1_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
)

// patience is how long a test waits for something that must happen.
const patience = 30 * time.Second

// mustServe serves and returns how to connect.
func mustServe(t testing.TB, s *http1.Server) func() net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		require.ErrorIs(t, <-served, http1.ErrClosed)
	})
	return func() net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		return conn
	}
}

// echo answers with what it was asked.
func echo(x *http1.Exchange) {
	body, err := io.ReadAll(x)
	text := fmt.Sprintf("%s %s?%s %q", x.Method, x.Path, x.Query, body)
	if err != nil {
		text += " " + err.Error()
	}
	if t := x.Trailer("X-Trailer"); t != "" {
		text += " trailer " + t
	}
	x.Status(200)
	x.Set("X-Echo", x.Header("X-Echo"))
	x.Send([]byte(text))
}

func mustWrite(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
}

// mustAnswer reads an answer and its body.
func mustAnswer(t testing.TB, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

const host = "Host: x\r\n"

func TestServer_Requests_AreUnderstood(t *testing.T) {
	connect := mustServe(t, &http1.Server{Handler: echo})
	for name, c := range map[string]struct{ request, want string }{
		"plain":                {"GET /a?b=c HTTP/1.1\r\n" + host + "\r\n", `GET /a?b=c ""`},
		"escaped":              {"GET /a%2fb%3D HTTP/1.1\r\n" + host + "\r\n", `GET /a/b=? ""`},
		"absolute":             {"GET http://x:1/a HTTP/1.1\r\n" + host + "\r\n", `GET /a? ""`},
		"absolute, no path":    {"GET http://x HTTP/1.1\r\n" + host + "\r\n", `GET /? ""`},
		"body":                 {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello", `POST /? "hello"`},
		"names in other case":  {"POST / HTTP/1.1\r\nhOST: x\r\ncontent-LENGTH:2\r\n\r\nhi", `POST /? "hi"`},
		"lines end with LF":    {"POST / HTTP/1.1\nHost: x\nContent-Length: 2\n\nhi", `POST /? "hi"`},
		"empty line before it": {"\r\nGET / HTTP/1.1\r\n" + host + "\r\n", `GET /? ""`},
		"chunks":               {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n", `POST /? "hello!"`},
		"trailers":             {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\nx-trailer: t\r\n\r\n", `POST /? "0123456789" trailer t`},
		"no body of chunks":    {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", `POST /? ""`},
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect()
			r := bufio.NewReader(conn)
			mustWrite(t, conn, c.request+"GET /next HTTP/1.1\r\n"+host+"\r\n") // behind it, at once
			resp, body := mustAnswer(t, r)
			assert.Equal(t, 200, resp.StatusCode)
			assert.Equal(t, c.want, body)
			_, body = mustAnswer(t, r)
			assert.Equal(t, `GET /next? ""`, body)

			conn = connect() // byte by byte
			r = bufio.NewReader(conn)
			for n := range len(c.request) {
				mustWrite(t, conn, c.request[n:n+1])
			}
			_, body = mustAnswer(t, r)
			assert.Equal(t, c.want, body)
		})
	}
}

func TestServer_WhatIsNotCertain_IsRefused(t *testing.T) {
	connect := mustServe(t, &http1.Server{Handler: echo})
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"no HTTP":                    {"hello\r\n\r\n", 400},
		"HTTP/2":                     {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		"no host":                    {"GET / HTTP/1.1\r\n\r\n", 400},
		"two hosts":                  {"GET / HTTP/1.1\r\n" + host + host + "\r\n", 400},
		"two lengths":                {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
		"two lengths in one":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1, 1\r\n\r\na", 400},
		"signed length":              {"POST / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\na", 400},
		"no length":                  {"POST / HTTP/1.1\r\n" + host + "Content-Length: \r\n\r\n", 400},
		"immense length":             {"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		"length and chunks":          {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"chunks twice":               {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"another coding":             {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		"chunks in HTTP/1.0":         {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"folded":                     {"GET / HTTP/1.1\r\n" + host + " folded\r\n\r\n", 400},
		"blank before colon":         {"GET / HTTP/1.1\r\n" + host + "Content-Length : 1\r\n\r\na", 400},
		"no name":                    {"GET / HTTP/1.1\r\n" + host + ": 1\r\n\r\n", 400},
		"bare CR":                    {"GET / HTTP/1.1\r\n" + host + "A: b\rContent-Length: 1\r\n\r\n", 400},
		"control character":          {"GET / HTTP/1.1\r\n" + host + "A: b\x00\r\n\r\n", 400},
		"blank in target":            {"GET /a b HTTP/1.1\r\n" + host + "\r\n", 400},
		"target without slash":       {"GET a HTTP/1.1\r\n" + host + "\r\n", 400},
		"malformed escape":           {"GET /%zz HTTP/1.1\r\n" + host + "\r\n", 400},
		"something else is expected": {"POST / HTTP/1.1\r\n" + host + "Expect: more\r\nContent-Length: 1\r\n\r\na", 417},
		"long head":                  {"GET / HTTP/1.1\r\n" + host + "A: " + strings.Repeat("a", 1<<20+8192) + "\r\n\r\n", 431},
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect()
			go func() { _, _ = io.WriteString(conn, c.request+"GET /smuggled HTTP/1.1\r\n"+host+"\r\n") }()
			r := bufio.NewReader(conn)
			resp, _ := mustAnswer(t, r)
			assert.Equal(t, c.status, resp.StatusCode)
			assert.True(t, resp.Close)
			_, err := r.ReadByte()
			assert.Error(t, err, "the connection has ended")
		})
	}
}

func TestServer_MalformedBodies_EndTheConnection(t *testing.T) {
	connect := mustServe(t, &http1.Server{Handler: echo})
	for name, c := range map[string]struct{ body, want string }{
		"no size":                {"\r\n\r\n", "malformed chunk size"},
		"no number":              {"x\r\n\r\n", "malformed chunk size"},
		"blank before extension": {"1 ;a\r\n\r\n", "malformed chunk size"},
		"signed":                 {"-1\r\n\r\n", "malformed chunk size"},
		"immense":                {"1000000000000000\r\n\r\n", "malformed chunk size"},
		"LF":                     {"1\na\r\n0\r\n\r\n", "does not end with CR LF"},
		"longer than its size":   {"1\r\nab\r\n0\r\n\r\n", "longer than"},
		"long line":              {"1;" + strings.Repeat("a", 600) + "\r\na\r\n0\r\n\r\n", "longer than 512 bytes"},
		"long lines":             {strings.Repeat("1;"+strings.Repeat("a", 500)+"\r\na\r\n", 50), "malformed chunk size"},
		"long trailers":          {"0\r\n" + strings.Repeat("X-T: "+strings.Repeat("a", 1000)+"\r\n", 5) + "\r\n", "trailers of more than 4096 bytes"},
		"folded trailer":         {"0\r\nA: b\r\n c\r\n\r\n", "malformed header field"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect()
			r := bufio.NewReader(conn)
			mustWrite(t, conn, "POST / HTTP/1.1\r\n"+host+"Transfer-Encoding: chunked\r\n\r\n"+c.body+"GET /smuggled HTTP/1.1\r\n"+host+"\r\n")
			_, body := mustAnswer(t, r)
			assert.Contains(t, body, c.want)
			_, err := r.ReadByte()
			assert.Error(t, err, "the connection has ended")
		})
	}
}

func TestServer_Body_CutOff(t *testing.T) {
	read := make(chan error, 1)
	connect := mustServe(t, &http1.Server{Handler: func(x *http1.Exchange) {
		_, err := io.ReadAll(x)
		read <- err
	}})
	for _, framing := range []string{"Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5"} {
		conn := connect()
		mustWrite(t, conn, "POST / HTTP/1.1\r\n"+host+framing)
		require.NoError(t, conn.Close())
		require.ErrorIs(t, <-read, io.ErrUnexpectedEOF, framing)
	}
}

func TestServer_Continue_IsSaidWhenTheBodyIsWanted(t *testing.T) {
	connect := mustServe(t, &http1.Server{Handler: func(x *http1.Exchange) {
		if x.Path == "/no" {
			x.Plain(413, "no")
			return
		}
		echo(x)
	}})
	conn := connect()
	r := bufio.NewReader(conn)
	mustWrite(t, conn, "POST / HTTP/1.1\r\n"+host+"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = r.ReadString('\n')
	require.NoError(t, err)
	mustWrite(t, conn, "hi")
	_, body := mustAnswer(t, r)
	assert.Equal(t, `POST /? "hi"`, body)

	mustWrite(t, conn, "POST /no HTTP/1.1\r\n"+host+"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	resp, _ := mustAnswer(t, r)
	assert.Equal(t, 413, resp.StatusCode)
	assert.True(t, resp.Close, "whether the body comes cannot be known")
}

// A client that keeps its connection would send the next request into its end.
func TestServer_BodyThatWillNotBeRead_AnswerSaysThatTheConnectionEnds(t *testing.T) {
	connect := mustServe(t, &http1.Server{Handler: func(x *http1.Exchange) { x.Plain(413, "too much") }})
	for framing, ends := range map[string]bool{"Content-Length: 10": false, "Content-Length: 1000000": true, "Transfer-Encoding: chunked": true} {
		conn := connect()
		_, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", framing)
		require.NoError(t, err)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		assert.Equal(t, 413, answer.StatusCode)
		assert.Equal(t, ends, answer.Close, framing)
		require.NoError(t, answer.Body.Close())
	}
}

func TestServer_BodyThatIsNotRead(t *testing.T) {
	connect := mustServe(t, &http1.Server{Handler: func(x *http1.Exchange) { x.Plain(404, "not here") }})
	conn := connect()
	r := bufio.NewReader(conn)
	mustWrite(t, conn, "POST / HTTP/1.1\r\n"+host+"Content-Length: 100000\r\n\r\n"+strings.Repeat("a", 100000))
	mustAnswer(t, r)
	mustWrite(t, conn, "POST / HTTP/1.1\r\n"+host+"Content-Length: 10000000\r\n\r\n")
	mustAnswer(t, r)
	go func() { _, _ = conn.Write(make([]byte, 10000000)) }()
	_, err := r.ReadByte()
	assert.Error(t, err, "too long to be read for nothing")
}

func TestServer_HTTP10AndClose_EndTheConnection(t *testing.T) {
	connect := mustServe(t, &http1.Server{Handler: echo})
	for _, request := range []string{"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\n" + host + "Connection: keep-alive, Close\r\n\r\n"} {
		conn := connect()
		r := bufio.NewReader(conn)
		mustWrite(t, conn, request)
		resp, body := mustAnswer(t, r)
		assert.True(t, resp.Close)
		assert.Equal(t, `GET /? ""`, body)
		_, err := r.ReadByte()
		assert.ErrorIs(t, err, io.EOF)
	}
}

func TestServer_HEAD_HasNoBody(t *testing.T) {
	connect := mustServe(t, &http1.Server{Handler: echo})
	conn := connect()
	r := bufio.NewReader(conn)
	mustWrite(t, conn, "HEAD / HTTP/1.1\r\n"+host+"\r\nGET / HTTP/1.1\r\n"+host+"\r\n")
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodHead})
	require.NoError(t, err)
	assert.Positive(t, resp.ContentLength)
	_, body := mustAnswer(t, r)
	assert.Equal(t, `GET /? ""`, body)
}

func TestServer_Values_CannotEndTheirLine(t *testing.T) {
	connect := mustServe(t, &http1.Server{Date: true, Handler: func(x *http1.Exchange) {
		x.Status(200)
		x.Set("A", "b\r\nC: d\x00")
		x.Send(nil)
	}})
	conn := connect()
	mustWrite(t, conn, "GET / HTTP/1.1\r\n"+host+"\r\n")
	resp, _ := mustAnswer(t, bufio.NewReader(conn))
	assert.Equal(t, "b  C: d", strings.TrimRight(resp.Header.Get("A"), " "))
	assert.Empty(t, resp.Header.Get("C"))
	date, err := http.ParseTime(resp.Header.Get("Date"))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), date, patience)
}

func TestServer_SlowClients_AreGivenUp(t *testing.T) {
	connect := mustServe(t, &http1.Server{Handler: echo, HeadTimeout: 50 * time.Millisecond})
	for _, begun := range []string{"", "GET / HT", "GET / HTTP/1.1\r\nHost"} {
		conn := connect()
		mustWrite(t, conn, begun)
		if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
			require.NoError(t, err, "the server ends it")
		}
	}
}

func TestServer_BetweenRequests_ThereIsTime(t *testing.T) {
	const limit = 2 * time.Second // the first request has to come within it
	conn := mustServe(t, &http1.Server{Handler: echo, HeadTimeout: limit})()
	r := bufio.NewReader(conn)
	mustWrite(t, conn, "GET / HTTP/1.1\r\n"+host+"\r\n")
	mustAnswer(t, r)
	time.Sleep(limit + limit/4)
	mustWrite(t, conn, "GET / HTTP/1.1\r\n"+host+"\r\n")
	mustAnswer(t, r)
}

func TestServer_ClientThatTakesNothing_IsGivenUp(t *testing.T) {
	large := make([]byte, 64<<20)
	answered := make(chan struct{})
	connect := mustServe(t, &http1.Server{WriteTimeout: 50 * time.Millisecond, Handler: func(x *http1.Exchange) {
		x.Status(200)
		x.Send(large)
		close(answered)
	}})
	mustWrite(t, connect(), "GET / HTTP/1.1\r\n"+host+"\r\n")
	select {
	case <-answered:
	case <-time.After(patience):
		t.Fatal("the answer still waits")
	}
}

func TestStream_Pieces(t *testing.T) {
	more := make(chan struct{})
	connect := mustServe(t, &http1.Server{Handler: func(x *http1.Exchange) {
		x.Status(200)
		x.Set("Trailer", "X-End")
		assert.NoError(t, x.Stream())
		assert.NoError(t, x.Chunk([]byte("first;")))
		<-more
		assert.NoError(t, x.Chunk([]byte("second;")))
		x.End([]http1.Field{{Name: "X-End", Value: "well"}})
	}})
	conn := connect()
	r := bufio.NewReader(conn)
	mustWrite(t, conn, "GET / HTTP/1.1\r\n"+host+"\r\n")
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	piece := make([]byte, 6)
	_, err = io.ReadFull(resp.Body, piece)
	require.NoError(t, err)
	assert.Equal(t, "first;", string(piece))
	close(more)
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, "second;", string(rest))
	assert.Equal(t, "well", resp.Trailer.Get("X-End"))
}

func TestWatch_SeesTheClientLeave(t *testing.T) {
	stayed := make(chan bool)
	connect := mustServe(t, &http1.Server{Handler: func(x *http1.Exchange) {
		if x.Path == "/stay" {
			x.Watch()
			echo(x)
			return
		}
		select {
		case <-x.Watch():
			stayed <- false
		case <-time.After(patience):
			stayed <- true
		}
	}})
	conn := connect()
	r := bufio.NewReader(conn)
	for range 3 { // the watcher ends with the answer, and takes nothing away
		mustWrite(t, conn, "GET /stay HTTP/1.1\r\n"+host+"\r\n")
		_, body := mustAnswer(t, r)
		assert.Equal(t, `GET /stay? ""`, body)
	}
	mustWrite(t, conn, "GET /leave HTTP/1.1\r\n"+host+"\r\n")
	require.NoError(t, conn.Close())
	assert.False(t, <-stayed)
}

// await serves exchanges that another goroutine answers.
func await(waiting chan<- *http1.Exchange, left chan<- error) func(*http1.Exchange) {
	return func(x *http1.Exchange) {
		waiting <- x
		err := x.Await()
		if err != nil {
			left <- err
			return
		}
		x.Answered()
	}
}

func TestDeliver_FromAnotherGoroutine(t *testing.T) {
	waiting, left := make(chan *http1.Exchange), make(chan error, 1)
	connect := mustServe(t, &http1.Server{Handler: await(waiting, left)})
	conn := connect()
	r := bufio.NewReader(conn)
	for _, size := range []int{0, 10, 100, 1 << 20, 32 << 20} {
		mustWrite(t, conn, "GET / HTTP/1.1\r\n"+host+"\r\n")
		x := <-waiting
		body := bytes.Repeat([]byte{'a'}, size)
		head := http1.AppendField(x.AppendStatus(nil, 200), "Content-Length", fmt.Sprint(size))
		sent := make(chan struct{})
		x.Claim()
		// However much it is, and though nobody reads: it does not wait.
		x.Deliver(append(head, "\r\n"...), body, func() { close(sent) })
		resp, got := mustAnswer(t, r)
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, len(body), len(got))
		<-sent
	}
	mustWrite(t, conn, "GET / HTTP/1.1\r\n"+host+"Content-Length: 3\r\n\r\nabc") // a body is no second request
	x := <-waiting
	x.Claim()
	x.Deliver(append(http1.AppendField(x.AppendStatus(nil, 200), "Content-Length", "0"), "\r\n"...), nil, func() {})
	mustAnswer(t, r)
	mustWrite(t, conn, "GET / HTTP/1.1\r\n"+host+"\r\n")
	<-waiting
	require.NoError(t, conn.Close())
	require.ErrorIs(t, <-left, io.EOF)
}

// TestDeliver_ClientSendsItsNextRequestBefore_AnswersAreInOrder, and nothing of the first exchange is used for the second.
func TestDeliver_ClientSendsItsNextRequestBefore_AnswersAreInOrder(t *testing.T) {
	for _, size := range []int{0, 32 << 20} {
		waiting, awaited, answered := make(chan *http1.Exchange), make(chan error, 1), make(chan struct{})
		connect := mustServe(t, &http1.Server{Handler: func(x *http1.Exchange) {
			if x.Path == "/second" {
				close(answered)
				echo(x)
				return
			}
			waiting <- x
			awaited <- x.Await()
			x.Answered()
		}})
		conn := connect()
		mustWrite(t, conn, "GET /first HTTP/1.1\r\n"+host+"\r\n")
		x := <-waiting
		x.Claim()
		mustWrite(t, conn, "GET /second HTTP/1.1\r\n"+host+"Connection: close\r\n\r\n")
		require.NoError(t, <-awaited)
		select {
		case <-answered:
			t.Fatal("the second request is answered before the first")
		case <-time.After(50 * time.Millisecond): // nothing says that it waits
		}
		head := http1.AppendField(x.AppendStatus(nil, 200), "Content-Length", fmt.Sprint(size))
		assert.NotContains(t, string(head), "Connection: close", "that is the second's")
		x.Deliver(append(head, "\r\n"...), make([]byte, size), func() {})
		r := bufio.NewReader(conn)
		_, body := mustAnswer(t, r)
		assert.Len(t, body, size)
		_, body = mustAnswer(t, r)
		assert.Equal(t, `GET /second? ""`, body)
	}
}

// TestDeliver_LastOfItsConnection: a client of HTTP/1.0 waits for the end of the connection, and has it with the answer.
func TestDeliver_LastOfItsConnection(t *testing.T) {
	waiting, left := make(chan *http1.Exchange), make(chan error, 10)
	connect := mustServe(t, &http1.Server{Handler: await(waiting, left)})
	for _, request := range []string{"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"} {
		for _, size := range []int{3, 32 << 20} {
			conn := connect()
			mustWrite(t, conn, request)
			x := <-waiting
			x.Claim()
			x.Deliver(append(x.AppendStatus(nil, 200), "\r\n"...), make([]byte, size), func() {})
			text, err := io.ReadAll(conn)
			require.NoError(t, err)
			head, body, _ := strings.Cut(string(text), "\r\n\r\n")
			assert.Contains(t, head, "Connection: close")
			assert.Len(t, body, size)
		}
	}
}

func TestDeliver_ClientLeavesInTheMiddle_IsSentAllTheSame(t *testing.T) {
	waiting, left := make(chan *http1.Exchange), make(chan error, 1)
	connect := mustServe(t, &http1.Server{Handler: await(waiting, left)})
	conn := connect()
	mustWrite(t, conn, "GET / HTTP/1.1\r\n"+host+"\r\n")
	x, sent := <-waiting, make(chan struct{})
	x.Claim()
	x.Deliver(append(x.AppendStatus(nil, 200), "\r\n"...), make([]byte, 64<<20), func() { close(sent) })
	require.NoError(t, conn.Close())
	select {
	case <-sent:
	case <-time.After(patience):
		t.Fatal("it still waits")
	}
}

func TestShutdown_AnswersWhatHasCome(t *testing.T) {
	hold, begun := make(chan struct{}), make(chan struct{}, 1)
	s := &http1.Server{Handler: func(x *http1.Exchange) {
		begun <- struct{}{}
		<-hold
		echo(x)
	}}
	connect := mustServe(t, s)
	idle, busy := connect(), connect()
	mustWrite(t, busy, "GET / HTTP/1.1\r\n"+host+"\r\n")
	<-begun
	assert.False(t, s.Shutdown(50*time.Millisecond), "a request is being answered")
	_, err := io.ReadAll(idle)
	require.NoError(t, err, "ended")
	close(hold)
	assert.True(t, s.Shutdown(patience))
	text, err := io.ReadAll(busy)
	require.NoError(t, err)
	assert.Contains(t, string(text), `GET /? ""`)
	_, err = net.Dial("tcp", busy.RemoteAddr().String())
	assert.Error(t, err)
}

func TestServer_PanicOfAHandler_IsToldAndEndsItsConnection(t *testing.T) {
	faults := make(chan string, 1)
	connect := mustServe(t, &http1.Server{Fault: func(m string) { faults <- m }, Handler: func(x *http1.Exchange) {
		if x.Path == "/panic" {
			panic("oops")
		}
		echo(x)
	}})
	conn := connect()
	mustWrite(t, conn, "GET /panic HTTP/1.1\r\n"+host+"\r\n")
	_, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Contains(t, <-faults, "panic while answering /panic: oops")
	conn = connect()
	mustWrite(t, conn, "GET / HTTP/1.1\r\n"+host+"\r\n")
	mustAnswer(t, bufio.NewReader(conn))
}

// exchange sends a request and reads an answer of as many bytes, without an allocation.
func exchange(conn net.Conn, request, answer []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, answer)
	return err
}

var invocation = []byte("POST /2015-03-31/functions/function/invocations HTTP/1.1\r\nHost: 10.0.0.1:27182\r\nContent-Type: application/json\r\n" +
	"X-Amzn-RequestId: 8c5bd9e2-32a5-4d1e-9d0b-0b0f1e4c5a77\r\nX-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793\r\nContent-Length: 1000\r\n\r\n" +
	strings.Repeat("a", 1000))

// small takes a body and answers without an allocation of its own.
func small() func(*http1.Exchange) {
	body := make([]byte, 4096)
	return func(x *http1.Exchange) {
		n, err := io.ReadFull(x, body[:x.ContentLength])
		if err != nil || x.Header("X-Amzn-Requestid") == "" {
			panic(errors.New("not understood"))
		}
		x.Status(200)
		x.Set("Content-Type", "application/json")
		x.Send(body[:n])
	}
}

const answerBytes = len("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n") + 1000

func TestServer_Request_AllocatesNextToNothing(t *testing.T) {
	conn := mustServe(t, &http1.Server{Handler: small()})()
	answer := make([]byte, answerBytes)
	require.NoError(t, exchange(conn, invocation, answer))
	assert.LessOrEqual(t, testing.AllocsPerRun(500, func() {
		if err := exchange(conn, invocation, answer); err != nil {
			t.Error(err)
		}
	}), 3.0, "the head's text, and what the sending needs")
}

func BenchmarkServer(b *testing.B) {
	conn := mustServe(b, &http1.Server{Handler: small(), HeadTimeout: patience, WriteTimeout: patience})()
	benchmark(b, conn)
}

func BenchmarkNetHTTP(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		_, _ = io.ReadFull(r.Body, body)
		w.Header()["Content-Type"] = []string{"application/json"}
		w.Header()["Date"] = nil
		_, _ = w.Write(body)
	})}
	go func() { _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	benchmark(b, conn)
}

func benchmark(b *testing.B, conn net.Conn) {
	b.Helper()
	answer := make([]byte, answerBytes)
	b.ReportAllocs()
	for b.Loop() {
		if err := exchange(conn, invocation, answer); err != nil {
			b.Fatal(err)
		}
	}
}
