package conformance

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// exchangeLimit bounds one request, against a box that hangs.
const exchangeLimit = 60 * time.Second

// Response is an answer as it was on the wire.
type Response struct {
	Status int
	// Header has the lines in their order and spelling.
	Header []HeaderLine
	Body   []byte
}

// HeaderLine is one line of an answer's head.
type HeaderLine struct{ Name, Value string }

// send writes a request, byte for byte, to a connection of its own and reads the answer. The answer counts also when it comes
// before the request is written.
func send(ctx context.Context, addr string, secure bool, method string, request []byte) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return Response{}, err
	}
	defer func() { _ = connection.Close() }()
	deadline, _ := ctx.Deadline()
	_ = connection.SetDeadline(deadline)
	if secure {
		connection = tls.Client(connection, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the box's development CA
	}
	written := make(chan error, 1)
	go func() {
		_, err := connection.Write(request)
		written <- err
	}()
	response, readErr := receive(bufio.NewReader(connection), method)
	_ = connection.Close()
	if err := <-written; readErr != nil {
		return response, errors.Join(readErr, err)
	}
	return response, nil
}

// sendHTTP2 sends the same request over HTTP/2, where names of headers have no spelling: the answer's are canonical.
func sendHTTP2(ctx context.Context, addr string, request []byte) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
	if err != nil {
		return Response{}, fmt.Errorf("read the request: %w", err)
	}
	r = r.WithContext(ctx)
	r.RequestURI, r.URL.Scheme, r.URL.Host = "", "https", addr
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the box's development CA
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return Response{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.ProtoMajor != 2 {
		return Response{}, fmt.Errorf("the answer came over %s", answer.Proto)
	}
	response := Response{Status: answer.StatusCode}
	for name, values := range answer.Header {
		for _, v := range values {
			response.Header = append(response.Header, HeaderLine{name, v})
		}
	}
	response.Body, err = io.ReadAll(answer.Body)
	return response, err
}

// receive reads one answer, past interim ones (100 Continue), and keeps the spelling of its header.
func receive(r *bufio.Reader, method string) (Response, error) {
	for {
		response, err := receiveOne(r, method)
		if err != nil || response.Status >= http.StatusOK {
			return response, err
		}
	}
}

func receiveOne(r *bufio.Reader, method string) (Response, error) {
	var head bytes.Buffer
	var response Response
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return response, fmt.Errorf("read the answer's head: %w", err)
		}
		head.WriteString(line)
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		if name, value, ok := strings.Cut(line, ":"); ok && head.Len() > len(line)+2 {
			response.Header = append(response.Header, HeaderLine{name, strings.TrimSpace(value)})
		}
	}
	parsed, err := http.ReadResponse(bufio.NewReader(io.MultiReader(&head, r)), &http.Request{Method: method})
	if err != nil {
		return response, fmt.Errorf("read the answer: %w", err)
	}
	defer func() { _ = parsed.Body.Close() }()
	response.Status = parsed.StatusCode
	response.Body, err = io.ReadAll(parsed.Body)
	return response, err
}

// compose makes the bytes of a request from request.http and a body: line ends become CRLF, Host and Content-Length are added
// where the file has none.
func compose(file, body []byte) (method string, request []byte) {
	head, own, _ := bytes.Cut(file, []byte("\n\n"))
	if body == nil {
		body = bytes.TrimSuffix(own, []byte("\n"))
	}
	lines := strings.Split(strings.TrimRight(string(head), "\n"), "\n")
	method, _, _ = strings.Cut(lines[0], " ")
	has := func(name string) bool {
		for _, line := range lines[1:] {
			if n, _, _ := strings.Cut(line, ":"); strings.EqualFold(n, name) {
				return true
			}
		}
		return false
	}
	if !has("Host") {
		lines = append(lines, "Host: api.esb.test")
	}
	if len(body) > 0 && !has("Content-Length") && !has("Transfer-Encoding") {
		lines = append(lines, "Content-Length: "+strconv.Itoa(len(body)))
	}
	return method, append([]byte(strings.Join(lines, "\r\n")+"\r\n\r\n"), body...)
}

// Expected is response.json.
type Expected struct {
	Status int `json:"status"`
	// Headers by their exact spelling, each a text or a list of texts, with placeholders.
	Headers map[string]texts `json:"headers"`
	// Absent are names that no line may have, in any spelling.
	Absent []string `json:"absent"`
	// Body is exact to the byte, BodyJSON compares as JSON, BodyBase64 is for bytes, BodySize for long ones.
	Body       *string         `json:"body"`
	BodyJSON   json.RawMessage `json:"body_json"`
	BodyBase64 *string         `json:"body_base64"`
	BodySize   *int            `json:"body_size"`
}

// texts is a text or a list of texts.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	if err := json.Unmarshal(data, &one); err == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}

// Response compares an answer with response.json.
func (m *Matcher) Response(want []byte, got Response) []string {
	var e Expected
	d := json.NewDecoder(bytes.NewReader(want))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return []string{fmt.Sprintf("%s: %v", fileResponse, err)}
	}
	var all []string
	if e.Status != got.Status {
		all = append(all, fmt.Sprintf("status: got %d, want %d (body %q)", got.Status, e.Status, short(string(got.Body))))
	}
	for _, name := range sorted(e.Headers) {
		var values []string
		for _, line := range got.Header {
			if line.Name == name {
				values = append(values, line.Value)
			}
		}
		expected := e.Headers[name]
		switch {
		case len(values) == 0:
			all = append(all, fmt.Sprintf("header %s: is absent; there are %v", name, got.Header))
		case len(values) != len(expected):
			all = append(all, fmt.Sprintf("header %s: got %q, want %q", name, values, []string(expected)))
		default:
			for i := range values {
				if d := m.Text(expected[i], values[i]); d != "" {
					all = append(all, fmt.Sprintf("header %s: %s", name, d))
				}
			}
		}
	}
	for _, name := range e.Absent {
		for _, line := range got.Header {
			if strings.EqualFold(line.Name, name) {
				all = append(all, fmt.Sprintf("header %s: got %q, want it absent", line.Name, line.Value))
			}
		}
	}
	if e.Body != nil {
		if d := m.Text(*e.Body, string(got.Body)); d != "" {
			all = append(all, "body: "+d)
		}
	}
	if e.BodyJSON != nil {
		for _, d := range m.JSON(e.BodyJSON, got.Body) {
			all = append(all, "body"+d)
		}
	}
	if e.BodyBase64 != nil {
		if d := base64Differs(*e.BodyBase64, got.Body); d != "" {
			all = append(all, "body: "+d)
		}
	}
	if e.BodySize != nil && *e.BodySize != len(got.Body) {
		all = append(all, fmt.Sprintf("body: got %d bytes, want %d", len(got.Body), *e.BodySize))
	}
	return all
}
