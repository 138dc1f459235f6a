package conformance

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// Box is the running box with what cases need to know of it.
type Box struct {
	*stack.Stack
	// Vars are the variables of every case: {{token}}, {{api_key}}, {{host}}, ...
	Vars map[string]string
}

// Runner runs a case of one kind. It returns what differs from the expected, one line each, and an error when it could not
// even ask.
type Runner func(ctx context.Context, b *Box, c *Case) ([]string, error)

// kinds has a runner for each kind. A part with a protocol of its own adds a line here and a file beside this one.
var kinds = map[string]Runner{
	kindHTTP: runHTTP,
}

// runHTTP sends each step's request as it stands and compares what the function saw (event.json: the answer's body is the event,
// so the route must lead to lambda-event) and what the client got (response.json).
func runHTTP(ctx context.Context, b *Box, c *Case) ([]string, error) {
	m := &Matcher{Vars: b.Vars}
	var all []string
	for _, s := range c.Steps {
		differences, err := runStep(ctx, b, c, s, m)
		if err != nil {
			return all, fmt.Errorf("step %q: %w", s.Name, err)
		}
		for _, d := range differences {
			all = append(all, strings.TrimPrefix(s.Name+": "+d, ": "))
		}
	}
	return all, nil
}

func runStep(ctx context.Context, b *Box, c *Case, s Step, m *Matcher) ([]string, error) {
	file, err := c.Read(s, fileRequest)
	if err != nil {
		return nil, err
	}
	if file == nil {
		path := s.Path
		if path == "" {
			path = "/respond"
		}
		file = []byte("POST " + path + " HTTP/1.1\nContent-Type: application/json\n\n")
	}
	body, err := c.body(s)
	if err != nil {
		return nil, err
	}
	method, request := compose([]byte(m.Expand(string(file))), body)
	addr, secure := strings.TrimPrefix(b.HTTPURL, "http://"), false
	if s.Scheme == "https" {
		addr, secure = strings.TrimPrefix(b.HTTPSURL, "https://"), true
	}
	response, err := send(ctx, addr, secure, method, request)
	if err != nil {
		return nil, err
	}
	var all []string
	want, err := c.Read(s, fileEvent)
	if err != nil {
		return nil, err
	}
	if want != nil {
		if response.Status != 200 {
			return []string{fmt.Sprintf("the event was not answered: %d %q", response.Status, short(string(response.Body)))}, nil
		}
		for _, d := range m.JSON(want, response.Body) {
			all = append(all, "event"+d)
		}
	}
	if want, err = c.Read(s, fileResponse); err != nil {
		return nil, err
	}
	if want != nil {
		all = append(all, m.Response(want, response)...)
	}
	return all, nil
}

func base64Differs(want string, got []byte) string {
	if text := base64.StdEncoding.EncodeToString(got); text != want {
		return fmt.Sprintf("got base64 %q, want %q", short(text), short(want))
	}
	return ""
}
