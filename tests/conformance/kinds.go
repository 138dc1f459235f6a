package conformance

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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
	kindHTTP:        runHTTP,
	kindEnvironment: runEnvironment,
	kindAsync:       runAsync,
	"reload":        runReload,
	kindInvoke:      runInvoke,
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

// exchange sends a request in one of the ways that a step may name.
func (b *Box) exchange(ctx context.Context, scheme, method string, request []byte) (Response, error) {
	secure := strings.TrimPrefix(b.HTTPSURL, "https://")
	switch scheme {
	case "":
		return send(ctx, strings.TrimPrefix(b.HTTPURL, "http://"), false, method, request)
	case "https":
		return send(ctx, secure, true, method, request)
	case "h2":
		return sendHTTP2(ctx, secure, request)
	}
	return Response{}, fmt.Errorf("scheme %q: there are https and h2, and HTTP without", scheme)
}

// runReload gives the box routing.yml of the case and compares what the operator is told by POST /reload (response.json); then
// the profile is the box's routing again.
func runReload(ctx context.Context, b *Box, c *Case) (differences []string, err error) {
	file, err := c.Read(Step{}, "routing.yml")
	if err != nil {
		return nil, err
	}
	want, err := c.Read(Step{}, fileResponse)
	if err != nil {
		return nil, err
	}
	if file == nil || want == nil {
		return nil, fmt.Errorf("a case of kind reload needs routing.yml and %s", fileResponse)
	}
	config := filepath.Join(b.Home, "config")
	defer func() {
		restoreErr := setRouting(config, c.Profile, b.Vars)
		if restoreErr == nil {
			var answer Response
			if answer, restoreErr = b.reload(ctx); restoreErr == nil && answer.Status != http.StatusOK {
				restoreErr = fmt.Errorf("the profile %s is refused: %s", c.Profile, answer.Body)
			}
		}
		err = errors.Join(err, restoreErr)
	}()
	if err := os.WriteFile(filepath.Join(config, "routing.yml"), file, 0o644); err != nil {
		return nil, err
	}
	answer, err := b.reload(ctx)
	if err != nil {
		return nil, err
	}
	return (&Matcher{Vars: b.Vars}).Response(want, answer), nil
}

// reload asks the gateway to read its configuration again.
func (b *Box) reload(ctx context.Context) (Response, error) {
	answer, err := b.Do(ctx, http.MethodPost, b.AdminURL+"/reload", "", nil)
	return Response{Status: answer.Status, Body: answer.Body}, err
}

// setRouting makes a profile the routing file in a box's folder of configuration, with {{issuer}} replaced.
func setRouting(config, profile string, vars map[string]string) error {
	data, err := os.ReadFile(filepath.Join("testdata", profile+".yml"))
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	text := strings.ReplaceAll(string(data), "{{issuer}}", vars["issuer"])
	return os.WriteFile(filepath.Join(config, "routing.yml"), []byte(text), 0o644)
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
	response, err := b.exchange(ctx, s.Scheme, method, request)
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
