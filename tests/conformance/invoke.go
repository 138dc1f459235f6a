package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// kindInvoke is a request to Lambda's Invoke API: it is signed, and the answer may be an event stream.
//
// with key: "function:<name>" signs with that function's own key, "none" does not sign, "unknown" and "wrong" sign with a
// key or a secret that nobody has; without it the tests' key signs. with skew: "6m" signs so long ago.
const kindInvoke = "invoke"

// fileEvents is what an event stream has: a list of {type, payload}, the chunks that follow each other as one.
const fileEvents = "events.json"

func runInvoke(ctx context.Context, b *Box, c *Case) ([]string, error) {
	m := &Matcher{Vars: b.Vars}
	var all []string
	for _, s := range c.Steps {
		differences, err := invokeStep(ctx, b, c, s, m)
		if err != nil {
			return all, fmt.Errorf("step %q: %w", s.Name, err)
		}
		for _, d := range differences {
			all = append(all, strings.TrimPrefix(s.Name+": "+d, ": "))
		}
	}
	return all, nil
}

func invokeStep(ctx context.Context, b *Box, c *Case, s Step, m *Matcher) ([]string, error) {
	file, err := c.Read(s, fileRequest)
	if err != nil {
		return nil, err
	}
	if file == nil {
		return nil, fmt.Errorf("%s is missing", c.file(s, fileRequest))
	}
	body, err := c.body(s)
	if err != nil {
		return nil, err
	}
	method, request := compose([]byte(m.Expand(string(file))), body)
	if request, err = signed(ctx, b, c, request); err != nil {
		return nil, err
	}
	response, err := send(ctx, strings.TrimPrefix(b.HTTPURL, "http://"), false, method, request)
	if err != nil {
		return nil, err
	}
	want, err := c.Read(s, fileResponse)
	if err != nil {
		return nil, err
	}
	if want == nil {
		return nil, fmt.Errorf("%s is missing", c.file(s, fileResponse))
	}
	all := m.Response(want, response)
	if want, err = c.Read(s, fileEvents); err != nil || want == nil {
		return all, err
	}
	events, err := decodeEvents(response.Body)
	if err != nil {
		return append(all, fmt.Sprintf("the answer is no event stream: %v: %q", err, short(string(response.Body)))), nil
	}
	for _, d := range m.JSON(want, events) {
		all = append(all, "events"+d)
	}
	return all, nil
}

// signed adds a signature to the head of a request.
func signed(ctx context.Context, b *Box, c *Case, request []byte) ([]byte, error) {
	key := sigv4.Credentials{AccessKeyID: stack.AccessKey, SecretAccessKey: stack.SecretKey}
	switch with := c.With["key"]; {
	case with == "none":
		return request, nil
	case with == "unknown":
		key.AccessKeyID = "AKIDNOBODY"
	case with == "wrong":
		key.SecretAccessKey = "another-secret"
	case strings.HasPrefix(with, "function:"):
		keys, err := b.FunctionKeys(ctx)
		if err != nil {
			return nil, err
		}
		key = keys.Of(strings.TrimPrefix(with, "function:"))
	case with != "":
		return nil, fmt.Errorf("with: there is no key %q", with)
	}
	at := time.Now()
	if v := c.With["skew"]; v != "" {
		skew, err := time.ParseDuration(v)
		if err != nil {
			return nil, err
		}
		at = at.Add(-skew)
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	sigv4.Sign(r, key, "us-east-1", "lambda", sigv4.HashPayload(body), at)
	head, rest, _ := bytes.Cut(request, []byte("\r\n\r\n"))
	lines := string(head)
	for _, name := range []string{"Authorization", sigv4.HeaderDate, sigv4.HeaderSecurityToken} {
		if v := r.Header.Get(name); v != "" {
			lines += "\r\n" + name + ": " + v
		}
	}
	return append([]byte(lines+"\r\n\r\n"), rest...), nil
}

// decodeEvents makes JSON of an event stream. Where a function's pieces begin and end is the network's to say.
func decodeEvents(body []byte) ([]byte, error) {
	type event struct {
		Type    string `json:"type"`
		Payload any    `json:"payload"`
	}
	events := []event{}
	decoder, stream := eventstream.NewDecoder(), bytes.NewReader(body)
	for {
		m, err := decoder.Decode(stream, nil)
		if errors.Is(err, io.EOF) {
			return json.Marshal(events)
		}
		if err != nil {
			return nil, err
		}
		e := event{Type: m.Headers.Get(":event-type").String()}
		if last := len(events) - 1; e.Type == "PayloadChunk" {
			if last >= 0 && events[last].Type == e.Type {
				events[last].Payload = events[last].Payload.(string) + string(m.Payload)
				continue
			}
			e.Payload = string(m.Payload)
		} else if err := json.Unmarshal(m.Payload, &e.Payload); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
}
