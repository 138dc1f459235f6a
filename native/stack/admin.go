package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/settings"
)

// lackError says that the gateway lacks disk space or stores, and nothing else.
type lackError struct {
	reasons []string
	// stores: not disk space alone.
	stores bool
}

func (e *lackError) Error() string { return strings.Join(e.reasons, "; ") }

// gatewayReady asks the gateway whether it is ready; the error says why it is not. A *lackError is one that a start of the
// gateway would not mend.
func (s *Stack) gatewayReady(ctx context.Context) error {
	req, err := s.adminRequest(ctx, http.MethodGet, "/readyz")
	if err != nil {
		return err
	}
	status, body, err := answerOf(req, "the gateway")
	if err != nil {
		return err
	}
	if status == http.StatusOK {
		return nil
	}
	if lacks := lacksOf(body); lacks != nil {
		return lacks
	}
	return notOK(req, status, body)
}

// lacksOf reads an answer of /readyz; nil means that something else than disk space and stores is missing too.
func lacksOf(body []byte) *lackError {
	var answer struct {
		Dependencies map[string]struct{ Status, Error string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil //nolint:nilerr // nothing is known of it
	}
	var lacks lackError
	for _, name := range slices.Sorted(maps.Keys(answer.Dependencies)) {
		switch d := answer.Dependencies[name]; d.Status {
		case "ok":
		case "full":
			lacks.reasons = append(lacks.reasons, d.Error)
		default:
			// resources are the tables and buckets that are still to be made, functions those whose code is in a bucket, too.
			if !slices.Contains([]string{"dynamodb", "s3", "resources", "functions"}, name) {
				return nil
			}
			lacks.reasons, lacks.stores = append(lacks.reasons, name+": "+d.Error), true
		}
	}
	if len(lacks.reasons) == 0 {
		return nil
	}
	return &lacks
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

// configuration asks the gateway whether it serves what the files say.
func (s *Stack) configuration(ctx context.Context) (native.Configuration, error) {
	var answer struct {
		Status    string    `json:"status"`
		RefusedAt time.Time `json:"refused_at"`
		Problems  []string  `json:"problems"`

		Substitutes []string `json:"substitutes"`
	}
	if err := s.askAdmin(ctx, http.MethodGet, "/configuration", &answer); err != nil {
		return native.Configuration{}, err
	}
	return native.Configuration{Refused: answer.Status == "refused", RefusedAt: answer.RefusedAt, Problems: answer.Problems,
		Substitutes: answer.Substitutes}, nil
}

// askAdmin reads a JSON answer of the gateway's admin listener.
func (s *Stack) askAdmin(ctx context.Context, method, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := s.adminRequest(ctx, method, path)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return fmt.Errorf("ask the gateway for %s: %w", path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the gateway for %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("read the gateway's answer to %s: %w", path, err)
	}
	return nil
}

// reload makes a gateway that was up already read its files now, so that `up` can say whether it serves them.
func (s *Stack) reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	req, err := s.adminRequest(ctx, http.MethodPost, "/reload")
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return fmt.Errorf("have the gateway read its files: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Problems []string `json:"problems"`
	}
	switch err := json.NewDecoder(resp.Body).Decode(&answer); {
	case resp.StatusCode == http.StatusOK:
		return nil
	case resp.StatusCode != http.StatusUnprocessableEntity || err != nil:
		return fmt.Errorf("have the gateway read its files: %s", resp.Status)
	}
	return notServed(answer.Problems)
}

// notServed says that the box serves what the files said before they had these problems.
func notServed(problems []string) error {
	return &native.Problem{
		What: "the box is up, but it does not serve what its files say: they have mistakes, and the configuration of before holds.\n" +
			native.Indent(strings.Join(problems, "\n"), "      "),
		Do: "Correct them: the gateway takes them up as soon as they are saved; `esb check` looks at them without that.",
	}
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
