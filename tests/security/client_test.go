package security

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// long says whether the attacks are as large and as long as they can be (ESB_SECURITY_LONG=true); else they are large enough
// to have got through once.
func long() bool { return os.Getenv("ESB_SECURITY_LONG") == "true" }

func longOr(atLength, else_ int) int {
	if long() {
		return atLength
	}
	return else_
}

const (
	// attacker and honest are addresses of loopback, so that the box can tell them apart.
	attacker = "127.0.0.66"
	honest   = "127.0.0.77"
	guesser  = "127.0.0.88"

	// budgetBytes is GATEWAY_BUFFER_MB of the box. One client gets half of it; the rest is for garbage not yet collected.
	budgetBytes int64 = 256 << 20

	invokePath = "/2015-03-31/functions/echo/invocations"
	loginPath  = "/user/auth/ver1.0"
)

// dialFrom dials the host of a URL of the box from an address of loopback.
func dialFrom(ctx context.Context, address, to string) (net.Conn, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 10 * time.Second}
	return dialer.DialContext(ctx, "tcp", u.Host)
}

// clientFrom is a client at an address of loopback.
func clientFrom(t *testing.T, address string) *http.Client {
	t.Helper()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dialFrom(ctx, address, "http://"+addr)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// half writes the head of a request with a body, and a part of it.
func half(conn net.Conn, method, path string, length int, part []byte, headers ...string) error {
	head := method + " " + path + " HTTP/1.1\r\nHost: box\r\nContent-Length: " + strconv.Itoa(length) + "\r\n"
	for _, h := range headers {
		head += h + "\r\n"
	}
	_, err := conn.Write(append([]byte(head+"\r\n"), part...))
	return err
}

func TestClient_HalfRequests_AreAnsweredAndClosed(t *testing.T) {
	for name, c := range map[string]struct {
		path   string
		status int
		within time.Duration
	}{
		"at a route with a token":      {"/guarded", 401, 5 * time.Second},
		"at a route with a key":        {"/keyed", 403, 5 * time.Second},
		"at no route":                  {"/nothing", 404, 5 * time.Second},
		"at Lambda's API, not signed":  {invokePath, 403, 5 * time.Second},
		"at the login":                 {loginPath, 400, 20 * time.Second},
		"at the health check":          {"/health", 404, 5 * time.Second},
		"at a route without a key":     {"/echo", 400, 75 * time.Second},
		"at Lambda's API, a key's own": {invokePath, 400, 75 * time.Second},
	} {
		if c.within > time.Minute && !long() {
			continue
		}
		attempt(t, client, "keep a connection by half a request "+name, func(t *testing.T) {
			conn, err := dialFrom(t.Context(), attacker, box.HTTPURL)
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			require.NoError(t, conn.SetDeadline(time.Now().Add(c.within)))
			var headers []string
			if strings.Contains(name, "a key's own") {
				headers = knownKey(t)
			}
			require.NoError(t, half(conn, http.MethodPost, c.path, 100000, nil, headers...))
			in := bufio.NewReader(conn)
			res, err := http.ReadResponse(in, nil)
			require.NoError(t, err)
			assert.Equal(t, c.status, res.StatusCode)
			_, err = io.Copy(io.Discard, res.Body)
			require.NoError(t, err)
			_, err = in.ReadByte()
			assert.ErrorIs(t, err, io.EOF)
		})
	}
}

// knownKey is what whoever has seen an access key id can send: all but the signature is right.
func knownKey(t *testing.T) []string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, box.HTTPURL+invokePath, nil)
	require.NoError(t, err)
	r.Host = "box"
	sigv4.Sign(r, sigv4.Credentials{AccessKeyID: stack.AccessKey, SecretAccessKey: "a guess"}, "us-east-1", "lambda", sigv4.HashPayload(nil), time.Now())
	return []string{"X-Amz-Date: " + r.Header.Get("X-Amz-Date"), "Authorization: " + r.Header.Get("Authorization")}
}

// crowd are connections that an attacker holds.
type crowd struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed atomic.Int64 // by the box
	wg     sync.WaitGroup
}

// join adds a connection and watches it, until the box closes it.
func (c *crowd) join(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns == nil {
		c.conns = make(map[net.Conn]struct{})
	}
	c.conns[conn] = struct{}{}
	c.wg.Go(func() {
		_, _ = io.Copy(io.Discard, conn)
		c.closed.Add(1)
		_ = conn.Close()
	})
}

func (c *crowd) leave() {
	c.mu.Lock()
	for conn := range c.conns {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// slow is what an honest client sees of a number of requests.
func slow(t *testing.T, n int) time.Duration {
	t.Helper()
	return slowOf(latencies(t, n))
}

// slowOf is the 99th percentile in the long form, which is for a quiet machine, and the 90th else.
func slowOf(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*longOr(99, 90)/100]
}

// latencies are those of an honest client's requests, half of them on new connections.
func latencies(t *testing.T, n int) []time.Duration {
	t.Helper()
	c := clientFrom(t, honest)
	took := make([]time.Duration, 0, n)
	for i := range n {
		if i%2 == 0 {
			c.CloseIdleConnections()
		}
		began := time.Now()
		res, err := c.Post(box.HTTPURL+"/echo", "application/json", strings.NewReader(`{"message":"x"}`)) //nolint:noctx // its client has a timeout
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		_ = res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode)
		took = append(took, time.Since(began))
	}
	return took
}

// bearable is how slow the box may be under attack: three times as slow as when it is quiet. The attacker works on the same
// few CPUs, so that a quick box gets a floor.
func bearable(quiet time.Duration) time.Duration {
	return max(3*quiet, time.Duration(longOr(250, 1000))*time.Millisecond)
}

func requireOperatorGetsIn(t *testing.T) {
	t.Helper()
	answer, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/healthz", "", nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.Status)
}

// requireConnections waits until an address may have so many connections at once: the gateway notices a moment later that those of
// another test have gone.
func requireConnections(t *testing.T, address string, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		var c crowd
		defer c.leave()
		for range n {
			conn, err := dialFrom(t.Context(), address, box.HTTPURL)
			if err != nil {
				return false
			}
			c.join(conn)
		}
		res, err := clientFrom(t, address).Get(box.HTTPURL + "/health") //nolint:noctx // its client has a timeout
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return c.closed.Load() == 0
	}, time.Minute, 200*time.Millisecond)
}

func requireBackToNormal(t *testing.T, quiet time.Duration) {
	t.Helper()
	require.Eventually(t, func() bool { return slow(t, 20) <= bearable(quiet) }, time.Duration(longOr(5, 60))*time.Second, 100*time.Millisecond)
}

func TestClient_ThousandsOfHalfRequests_LeaveTheBoxToOthers(t *testing.T) {
	quiet := slow(t, 200)
	for name, path := range map[string]string{"a route without a key": "/echo", "a route with a token": "/guarded"} {
		attempt(t, client, "keep others out by thousands of half requests at "+name, func(t *testing.T) {
			var c crowd
			defer c.leave()
			number := longOr(20800, 3000)
			for range number {
				conn, err := dialFrom(t.Context(), attacker, box.HTTPURL)
				if err != nil {
					continue // refused while it was still dialling
				}
				if half(conn, http.MethodPost, path, 100000, nil) != nil {
					_ = conn.Close()
					continue
				}
				c.join(conn)
			}
			loud := slow(t, 200)
			requireOperatorGetsIn(t)
			t.Logf("%d half requests, %d of them closed by the box; slow %v, quiet %v", number, c.closed.Load(), loud, quiet)
			assert.LessOrEqual(t, loud, bearable(quiet))
			c.leave()
			requireBackToNormal(t, quiet)
		})
	}
}

func TestClient_AdminConnectionsHeld_OperatorGetsIn(t *testing.T) {
	attempt(t, localUser, "keep the operator out by holding connections of the admin listener", func(t *testing.T) {
		var c crowd
		defer c.leave()
		for range 300 {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(box.AdminURL, "http://"))
			require.NoError(t, err)
			c.join(conn)
		}
		requireOperatorGetsIn(t)
	})
}

// gatewayMemory is the resident memory of the box's gateway in bytes.
func gatewayMemory(t *testing.T) int64 {
	t.Helper()
	return memoryOf(t, "gateway")
}

// memoryOf is the resident memory of one of the box's programs in bytes.
func memoryOf(t *testing.T, program string) int64 {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, dir := range dirs {
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || strings.TrimSuffix(exe, " (deleted)") != filepath.Join(box.BinDir, program) {
			continue
		}
		environment, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if !bytes.Contains(environment, []byte(box.Home)) {
			continue // of another box
		}
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		require.NoError(t, err)
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				require.NoError(t, err)
				return kb << 10
			}
		}
	}
	t.Fatalf("the box's %s is not among the processes", program)
	return 0
}

func TestClient_StalledUploads_StayWithinTheBudget(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("looks at the gateway's process")
	}
	const size, part = 6291456, 6200000
	for name, c := range map[string]struct {
		path  string
		known bool
		most  int64 // bytes
	}{
		"Lambda's API, not signed":            {invokePath, false, 64 << 20},
		"Lambda's API, with a known key's id": {invokePath, true, budgetBytes},
		"a route without a key":               {"/echo", false, budgetBytes},
		"a route with a token":                {"/guarded", false, 64 << 20},
	} {
		attempt(t, client, "take the gateway's memory by 60 uploads that stop, at "+name, func(t *testing.T) {
			requireConnections(t, attacker, 60)
			before := gatewayMemory(t)
			var c2 crowd
			defer c2.leave()
			var headers []string
			if c.known {
				headers = knownKey(t)
			}
			var sending sync.WaitGroup
			for range 60 {
				conn, err := dialFrom(t.Context(), attacker, box.HTTPURL)
				require.NoError(t, err)
				c2.join(conn)
				sending.Go(func() {
					_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
					_ = half(conn, http.MethodPost, c.path, size, make([]byte, part), headers...) // a refused one cannot send all
				})
			}
			sending.Wait()
			grown := gatewayMemory(t) - before
			t.Logf("%d MB more", grown>>20)
			assert.Less(t, grown, c.most)
			requireOperatorGetsIn(t)
			res, err := clientFrom(t, honest).Post(box.HTTPURL+"/echo", "application/json", strings.NewReader(strings.Repeat(" ", 1<<20)+"{}"))
			require.NoError(t, err)
			defer func() { _ = res.Body.Close() }()
			assert.Equal(t, http.StatusOK, res.StatusCode, "another one's upload has room")
		})
	}
}

func TestClient_LargeRequestsThatWait_StayWithinTheBudget(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("looks at the gateway's process")
	}
	attempt(t, client, "take the gateway's memory by large requests that wait for a function", func(t *testing.T) {
		requireConnections(t, attacker, 40)
		before := gatewayMemory(t)
		c := clientFrom(t, attacker)
		body := "time.sleep(4)\nresult = 1\n#" + strings.Repeat("x", 5_900_000)
		var taken, refused atomic.Int64
		var waiting sync.WaitGroup
		for range longOr(100, 40) {
			waiting.Go(func() {
				res, err := c.Post(box.HTTPURL+"/shell", "text/plain", strings.NewReader(body)) //nolint:noctx // its client has a timeout
				if err != nil {
					return // its connection was closed while it sent
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				switch res.StatusCode {
				case http.StatusServiceUnavailable:
					refused.Add(1)
				case http.StatusOK:
					taken.Add(1)
				}
			})
		}
		require.Eventually(t, func() bool { return refused.Load() > 0 }, 2*time.Minute, 50*time.Millisecond)
		grown := gatewayMemory(t) - before
		res, err := clientFrom(t, honest).Post(box.HTTPURL+"/echo", "application/json", strings.NewReader(`{"message":"x"}`)) //nolint:noctx // its client has a timeout
		require.NoError(t, err)
		_ = res.Body.Close()
		assert.Equal(t, http.StatusOK, res.StatusCode)
		waiting.Wait()
		t.Logf("%d taken, %d refused, %d MB more", taken.Load(), refused.Load(), grown>>20)
		assert.Positive(t, taken.Load())
		assert.Less(t, grown, budgetBytes)
	})
}

// h2 is an HTTP/2 connection on which an attacker sends what it likes.
type h2 struct {
	*http2.Framer
	conn   net.Conn
	closed chan struct{}
}

func dialH2(t *testing.T) *h2 {
	t.Helper()
	plain, err := dialFrom(t.Context(), attacker, box.HTTPSURL)
	require.NoError(t, err)
	conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	require.NoError(t, conn.SetDeadline(time.Now().Add(3*time.Minute)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	f := &h2{Framer: http2.NewFramer(conn, conn), conn: conn, closed: make(chan struct{})}
	require.NoError(t, f.WriteSettings())
	go func() {
		defer close(f.closed)
		_, _ = io.Copy(io.Discard, conn)
	}()
	t.Cleanup(func() { _ = conn.Close() })
	return f
}

// request opens a stream; its body stays open.
func (f *h2) request(stream uint32, path string) error {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "box"}, {":path", path}} {
		if err := e.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return err
		}
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
}

func TestClient_HTTP2Floods_EndTheirConnection(t *testing.T) {
	quiet := slow(t, 200)
	tableSizes := []http2.Setting{{ID: http2.SettingHeaderTableSize, Val: 0}, {ID: http2.SettingHeaderTableSize, Val: 4096}}
	for name, send := range map[string]func(f *h2, n int) error{
		"SETTINGS":      func(f *h2, _ int) error { return f.WriteSettings() },
		"empty DATA":    func(f *h2, _ int) error { return f.WriteData(1, false, nil) },
		"PRIORITY":      func(f *h2, _ int) error { return f.WritePriority(3, http2.PriorityParam{Weight: 1}) },
		"WINDOW_UPDATE": func(f *h2, _ int) error { return f.WriteWindowUpdate(0, 1) },
		"SETTINGS_HEADER_TABLE_SIZE while answers are sent": func(f *h2, n int) error {
			if n%20 == 0 {
				if err := f.request(uint32(3+2*(n/20)), "/nothing"); err != nil {
					return err
				}
			}
			return f.WriteSettings(tableSizes...)
		},
	} {
		attempt(t, client, "keep a core busy by endless "+name, func(t *testing.T) {
			var ended atomic.Int64
			stop := make(chan struct{})
			var wg sync.WaitGroup
			// In the long form the attacker comes again and again.
			wg.Go(func() {
				for {
					f := dialH2(t)
					if err := f.request(1, "/echo"); err != nil {
						return
					}
					for n := 0; send(f, n) == nil; n++ {
						select {
						case <-stop:
							_ = f.conn.Close()
							return
						default:
						}
						if n%100 == 99 {
							runtime.Gosched()
						}
					}
					<-f.closed
					ended.Add(1)
					if !long() {
						return
					}
				}
			})
			until := time.Now().Add(time.Duration(longOr(60, 1)) * time.Second)
			took := latencies(t, 100)
			for time.Now().Before(until) {
				took = append(took, latencies(t, 100)...)
			}
			loud := slowOf(took)
			t.Logf("%d connections ended; slow of %d requests %v, quiet %v", ended.Load(), len(took), loud, quiet)
			assert.LessOrEqual(t, loud, bearable(quiet))
			require.Eventually(t, func() bool { return ended.Load() > 0 }, 10*time.Second, 10*time.Millisecond, "the connection goes on")
			close(stop)
			wg.Wait()
			requireOperatorGetsIn(t)
			requireBackToNormal(t, quiet)
		})
	}
}

func TestClient_LoginGuesses_AreHeldBack(t *testing.T) {
	c := clientFrom(t, guesser)
	login := func(key, body string) (*http.Response, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, box.HTTPURL+loginPath, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("X-Api-Key", key)
		res, err := c.Do(r)
		require.NoError(t, err)
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		_ = res.Body.Close()
		return res, string(text)
	}
	credentials := func(password string) string {
		return fmt.Sprintf(`{"AuthParameters":{"USERNAME":%q,"PASSWORD":%q}}`, stack.User, password)
	}
	attempt(t, client, "try an API key out by a malformed login", func(t *testing.T) {
		for _, body := range []string{`{"AuthParameters":`, ``, `[]`, `{"AuthParameters":{"USERNAME":"a"}}`} {
			right, rightText := login(stack.APIKey, body)
			wrong, wrongText := login("a guess", body)
			for _, res := range []*http.Response{right, wrong} {
				assert.Equal(t, http.StatusBadRequest, res.StatusCode)
				for _, varies := range []string{"X-Amzn-Requestid", "X-Amz-Apigw-Id", "X-Amzn-Trace-Id", "Date"} {
					res.Header.Del(varies)
				}
			}
			assert.Equal(t, wrong.Header, right.Header)
			assert.Equal(t, wrongText, rightText)
		}
	})
	attempt(t, client, "try 300 passwords", func(t *testing.T) {
		looked := 0
		for n := range 300 {
			res, _ := login(stack.APIKey, credentials(fmt.Sprint("guess", n)))
			if res.StatusCode == http.StatusUnauthorized {
				looked++
				continue
			}
			require.Equal(t, http.StatusTooManyRequests, res.StatusCode)
			assert.NotEmpty(t, res.Header.Get("Retry-After"))
			assert.Empty(t, res.Header.Get("PADMA_USER_AUTHORIZED"))
		}
		assert.LessOrEqual(t, looked, 15)
		_, err := box.Token(t.Context())
		require.NoError(t, err, "others log in")
		require.Eventually(t, func() bool {
			res, _ := login(stack.APIKey, credentials(stack.Password))
			return res.StatusCode == http.StatusOK
		}, time.Minute+10*time.Second, 200*time.Millisecond, "it may log in once it has waited")
	})
}

func TestClient_SmuggledRequest_IsNotAnswered(t *testing.T) {
	attempt(t, client, "smuggle a request past a proxy by Content-Length with Transfer-Encoding", func(t *testing.T) {
		conn, err := dialFrom(t.Context(), attacker, box.HTTPURL)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = io.WriteString(conn, "POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: box\r\n\r\n")
		require.NoError(t, err)
		text, _ := io.ReadAll(conn) // a reset is as good as an end
		assert.Equal(t, 1, strings.Count(string(text), "HTTP/1.1 "), "%s", text)
	})
}

func TestClient_TokenWithCriticalExtension_IsRefused(t *testing.T) {
	key, err := box.GatewayFile(t.Context(), "jwt.key")
	require.NoError(t, err)
	token, err := box.Token(t.Context())
	require.NoError(t, err)
	signed := func(header string) string {
		text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + strings.Split(token, ".")[1]
		mac := hmac.New(sha256.New, bytes.TrimSpace(key))
		mac.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	attempt(t, client, "use a token with an extension that the box does not know", func(t *testing.T) {
		require.Equal(t, http.StatusOK, box.Post(t, "/guarded", signed(`{"alg":"HS256","typ":"JWT"}`), "{}").Status)
		require.Equal(t, http.StatusUnauthorized, box.Post(t, "/guarded", signed(`{"alg":"HS256","typ":"JWT","crit":["x"],"x":true}`), "{}").Status)
	})
}

func TestHostileFunction_HoldsConnections_GatewayServesOthers(t *testing.T) {
	attempt(t, function, "take the gateway's connections", func(t *testing.T) {
		got := inside(t, `
import socket, urllib.parse
u = urllib.parse.urlparse(os.environ["AWS_ENDPOINT_URL_LAMBDA"])
conns = []
for i in range(700):
    try:
        conns.append(socket.create_connection((u.hostname, u.port), 2))
    except OSError:
        pass
time.sleep(1)
held = 0
for c in conns:
    c.setblocking(False)
    try:
        held += c.recv(1) != b""
    except BlockingIOError:
        held += 1
    except OSError:
        pass
result = held
`)
		held, err := json.Marshal(got)
		require.NoError(t, err)
		n, err := strconv.Atoi(string(held))
		require.NoError(t, err)
		assert.Positive(t, n)
		assert.LessOrEqual(t, n, 300)
	})
}
