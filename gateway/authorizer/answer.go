package authorizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
)

// maxPolicyBytes bounds a policy (AWS quotas: 8 KB).
const maxPolicyBytes = 8192

// action is what a client of an API does (IAM: actions of execute-api).
const action = "execute-api:Invoke"

// decision is an authorizer's answer. It never changes: requests share it.
type decision struct {
	// simple is true for {"isAuthorized": ...}; authorized is its value.
	simple, authorized bool
	statements         []statement
	// caller is what the function behind the route is told, without AuthorizerLatency.
	caller *gateway.Caller
	// size of the answer in bytes.
	size int
}

// statement is one statement of a policy.
type statement struct {
	deny               bool
	actions, resources []string
}

// verdict is what a decision says about one request.
type verdict int

const (
	implicitDeny verdict = iota
	explicitDeny
	allow
)

// on says what d is for a request of that ARN: a deny wins over an allow, and what nothing allows is denied (IAM: policy
// evaluation logic).
func (d *decision) on(arn string) verdict {
	if d.simple {
		if d.authorized {
			return allow
		}
		return explicitDeny
	}
	v := implicitDeny
	for _, s := range d.statements {
		if !slices.ContainsFunc(s.actions, func(p string) bool { return matches(strings.ToLower(p), strings.ToLower(action)) }) ||
			!slices.ContainsFunc(s.resources, func(p string) bool { return matches(p, arn) }) {
			continue
		}
		if s.deny {
			return explicitDeny
		}
		v = allow
	}
	return v
}

// matches compares text with a pattern in which "*" stands for any text and "?" for any one character. It costs at most the
// product of both lengths.
func matches(pattern, text string) bool {
	p, t := 0, 0
	star, mark := -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// parseAnswer reads what the function of a returned. Its errors say what is wrong with it, for the operator.
func parseAnswer(a *gateway.Authorizer, payload []byte) (*decision, error) {
	answer, err := members(payload)
	if err != nil {
		return nil, fmt.Errorf("the answer is not a JSON object: %w", err)
	}
	d := &decision{simple: a.Simple, size: len(payload), caller: &gateway.Caller{Kind: gateway.AuthFunction}}
	if d.caller.Context, err = parseContext(answer["context"], a.Payload == gateway.PayloadV2); err != nil {
		return nil, err
	}
	if a.Simple {
		var authorized *bool
		if err := unmarshal(answer["isAuthorized"], &authorized); err != nil || authorized == nil {
			return nil, errors.New("isAuthorized must be true or false")
		}
		d.authorized = *authorized
		return d, nil
	}
	if err := text(answer["principalId"], &d.caller.Principal); err != nil || d.caller.Principal == "" {
		return nil, errors.New("principalId must be a string that is not empty")
	}
	if raw, ok := answer["usageIdentifierKey"]; ok && !null(raw) {
		if err := text(raw, &d.caller.APIKey); err != nil {
			return nil, errors.New("usageIdentifierKey must be a string")
		}
	}
	raw := answer["policyDocument"]
	if len(raw) > maxPolicyBytes {
		return nil, fmt.Errorf("policyDocument has %d bytes, at most %d are allowed", len(raw), maxPolicyBytes)
	}
	if d.statements, err = parsePolicy(raw); err != nil {
		return nil, fmt.Errorf("policyDocument: %w", err)
	}
	return d, nil
}

func parsePolicy(raw json.RawMessage) ([]statement, error) {
	policy, err := members(raw)
	if err != nil {
		return nil, fmt.Errorf("must be an object: %w", err)
	}
	list := []json.RawMessage{policy["Statement"]}
	if err := unmarshal(policy["Statement"], &list); err != nil {
		list = []json.RawMessage{policy["Statement"]} // IAM: one statement may stand without a list
	}
	if len(list) == 0 {
		return nil, errors.New("has no Statement")
	}
	var statements []statement
	for i, raw := range list {
		s, err := parseStatement(raw)
		if err != nil {
			return nil, fmt.Errorf("statement %d: %w", i+1, err)
		}
		statements = append(statements, s)
	}
	return statements, nil
}

func parseStatement(raw json.RawMessage) (s statement, err error) {
	m, err := members(raw)
	if err != nil {
		return s, fmt.Errorf("must be an object: %w", err)
	}
	for name := range m {
		switch name {
		case "Sid", "Effect", "Action", "Resource":
		default:
			// A condition that is not looked at would open what it closes.
			return s, fmt.Errorf("%.40q is not supported; supported are Sid, Effect, Action and Resource", name)
		}
	}
	var effect string
	if err := text(m["Effect"], &effect); err != nil || effect != "Allow" && effect != "Deny" {
		return s, errors.New("the Effect must be Allow or Deny")
	}
	s.deny = effect == "Deny"
	if s.actions, err = oneOrMore(m["Action"]); err != nil {
		return s, fmt.Errorf("the Action %w", err)
	}
	if s.resources, err = oneOrMore(m["Resource"]); err != nil {
		return s, fmt.Errorf("the Resource %w", err)
	}
	return s, nil
}

// oneOrMore reads a string or a list of strings.
func oneOrMore(raw json.RawMessage) ([]string, error) {
	var one string
	if text(raw, &one) == nil {
		return []string{one}, nil
	}
	var list []*string
	if err := unmarshal(raw, &list); err != nil || len(list) == 0 || slices.Contains(list, nil) {
		return nil, errors.New("must be a string or a list of strings")
	}
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = *s
	}
	return texts, nil
}

// parseContext reads the context by name: strings, numbers and truth values, and with format 2.0 lists and objects too (AWS:
// the examples of HTTP APIs have them, REST APIs refuse them). A null counts as absent.
func parseContext(raw json.RawMessage, nested bool) ([]gateway.ContextValue, error) {
	if null(raw) {
		return nil, nil
	}
	m, err := members(raw)
	if err != nil {
		return nil, fmt.Errorf("context must be an object: %w", err)
	}
	var list []gateway.ContextValue
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if null(m[name]) {
			continue
		}
		var value any
		if err := unmarshal(m[name], &value); err != nil {
			return nil, fmt.Errorf("context: %w", err)
		}
		encoded, err := json.Marshal(value) // what is not UTF-8 is no more
		if err != nil {
			return nil, fmt.Errorf("context: %w", err)
		}
		v := gateway.ContextValue{Name: name, Text: string(encoded), JSON: string(encoded)}
		switch value := value.(type) {
		case string:
			v.Text = value
		case []any, map[string]any:
			if !nested {
				return nil, fmt.Errorf("context: %.40q must be a string, a number or a truth value", name)
			}
		}
		list = append(list, v)
	}
	return list, nil
}

// members reads a JSON object; names are told apart by case, as AWS does and encoding/json does not with structs.
func members(raw []byte) (map[string]json.RawMessage, error) {
	var m map[string]json.RawMessage
	if err := unmarshal(raw, &m); err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errors.New("is null")
	}
	return m, nil
}

func unmarshal(raw []byte, to any) error {
	if len(raw) == 0 {
		return errors.New("is missing")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text follows the JSON value")
	}
	return nil
}

// text reads a string; null is none.
func text(raw json.RawMessage, to *string) error {
	var s *string
	if err := unmarshal(raw, &s); err != nil {
		return err
	}
	if s == nil {
		return errors.New("is null")
	}
	*to = *s
	return nil
}

func null(raw json.RawMessage) bool {
	return len(raw) == 0 || string(bytes.TrimSpace(raw)) == "null"
}
