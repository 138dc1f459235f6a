package response

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// Values are what templates can name of a request.
type Values struct {
	RequestID, ExtendedRequestID string
	// Path is as it was sent, with the stage before it, as in an event; Method, Protocol, Host, SourceIP and UserAgent are the request's.
	Path, Method, Protocol, Host, SourceIP, UserAgent string
	// Authorization is the request's header.
	Authorization string
	// Stage and ResourcePath are as in an event; ResourcePath is empty when no route matched.
	Stage, ResourcePath string
	AccountID, APIID    string
	Time                time.Time
	StageVariables      []gateway.StageVariable

	message string
	cause   Cause
}

// variables are those of API Gateway's $context that a box can fill in (API Gateway developer guide, Variables for data
// transformations). Their values are plain texts; messageString is the one that has quotes of its own.
var variables = map[string]func(*Values) string{
	"accountId":                   func(v *Values) string { return v.AccountID },
	"apiId":                       func(v *Values) string { return v.APIID },
	"domainName":                  func(v *Values) string { return v.Host },
	"error.message":               func(v *Values) string { return v.message },
	"error.responseType":          func(v *Values) string { return string(v.cause) },
	"extendedRequestId":           func(v *Values) string { return v.ExtendedRequestID },
	"httpMethod":                  func(v *Values) string { return v.Method },
	"identity.sourceIp":           func(v *Values) string { return v.SourceIP },
	"identity.userAgent":          func(v *Values) string { return v.UserAgent },
	"path":                        func(v *Values) string { return v.Path },
	"protocol":                    func(v *Values) string { return v.Protocol },
	"requestId":                   func(v *Values) string { return v.RequestID },
	"requestTime":                 func(v *Values) string { return v.Time.UTC().Format("02/Jan/2006:15:04:05 -0700") },
	"requestTimeEpoch":            func(v *Values) string { return strconv.FormatInt(v.Time.UnixMilli(), 10) },
	"resourcePath":                func(v *Values) string { return v.ResourcePath },
	"stage":                       func(v *Values) string { return v.Stage },
	messageString:                 func(v *Values) string { return string(appendJSON(nil, v.message)) },
	"error.validationErrorString": func(*Values) string { return "" },
}

// messageString is the variable whose value is a JSON string, with its quotes.
const messageString = "error.messageString"

// Template is a text with variables: $context.<name> and $stageVariables.<name>.
type Template struct {
	parts []part
	// StageVariables are the stage variables that the template names.
	StageVariables []string
}

// part is a plain text, or a variable when value is not nil.
type part struct {
	text  string
	value func(*Values) string
	// raw values are not escaped.
	raw bool
}

var (
	reference = regexp.MustCompile(`\$(context|stageVariables)\.([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)`)
	velocity  = regexp.MustCompile(`\$(?:input|util|method|integration|!)|\$\{|(?m:^\s*#[a-z]+)`)
)

// ParseTemplate reads a template. Its error names the variable that is not known.
func ParseTemplate(text string) (*Template, error) {
	if v := velocity.FindString(text); v != "" {
		return nil, fmt.Errorf("%q: templates have variables only, $context.<name> and $stageVariables.<name>", strings.TrimSpace(v))
	}
	t := &Template{}
	for {
		at := reference.FindStringSubmatchIndex(text)
		if at == nil {
			t.parts = append(t.parts, part{text: text})
			return t, nil
		}
		t.parts = append(t.parts, part{text: text[:at[0]]})
		kind, name := text[at[2]:at[3]], text[at[4]:at[5]]
		text = text[at[1]:]
		if kind == "stageVariables" {
			t.StageVariables = append(t.StageVariables, name)
			t.parts = append(t.parts, part{value: func(v *Values) string { return v.stageVariable(name) }})
			continue
		}
		value, ok := variables[name]
		if !ok {
			return nil, fmt.Errorf("there is no variable $context.%s; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(variables)), ", "))
		}
		t.parts = append(t.parts, part{value: value, raw: name == messageString})
	}
}

func (v *Values) stageVariable(name string) string {
	for _, s := range v.StageVariables {
		if s.Name == name {
			return s.Value
		}
	}
	return ""
}

// render fills the variables in; in JSON their values are escaped for the inside of a string, so that no client can write
// into the answer's structure.
func (t *Template) render(v *Values, inJSON bool) string {
	var b strings.Builder
	for _, p := range t.parts {
		switch {
		case p.value == nil:
			b.WriteString(p.text)
		case inJSON && !p.raw:
			quoted := appendJSON(nil, p.value(v))
			b.Write(quoted[1 : len(quoted)-1])
		default:
			b.WriteString(p.value(v))
		}
	}
	return b.String()
}

// singleLine is a header's value without control characters.
func singleLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

// appendJSON appends text as a JSON string; <, > and & stay as they are, as in API Gateway's answers.
func appendJSON(dst []byte, text string) []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a text never fails
	return append(dst, strings.TrimSuffix(b.String(), "\n")...)
}
