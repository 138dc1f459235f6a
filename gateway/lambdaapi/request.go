package lambdaapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/edge-serverless-box/esb/gateway"
)

const (
	// The patterns of the API reference (Invoke, FunctionName and Qualifier), which the messages name.
	namePattern      = `(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?`
	qualifierPattern = `\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+`
	tenantPattern    = `[a-zA-Z0-9\._:\/=+\-@ ]+`
	durablePattern   = `[a-zA-Z0-9-_]+`
	// The longest ones, in characters (the same; until November 2025 it was 170 for FunctionName).
	maxName      = 256
	maxQualifier = 128
	maxTenant    = 256
	maxDurable   = 64
)

var (
	nameExpression      = regexp.MustCompile(`^(?:` + namePattern + `)$`)
	qualifierExpression = regexp.MustCompile(`^(?:` + qualifierPattern + `)$`)
	tenantExpression    = regexp.MustCompile(`^(?:` + tenantPattern + `)$`)
	durableExpression   = regexp.MustCompile(`^(?:` + durablePattern + `)$`)
)

// reference is a function as a request names it; what it leaves out is empty.
type reference struct {
	region, account, name, qualifier string
}

// violations are what is wrong with the members of a request. AWS names all of them in one answer.
type violations []string

func (v *violations) add(value, member, constraint string) {
	*v = append(*v, fmt.Sprintf("Value '%s' at '%s' failed to satisfy constraint: %s", value, member, constraint))
}

// text checks the length and the pattern of a text.
func (v *violations) text(value, member string, longest int, expression *regexp.Regexp, pattern string) {
	switch n := utf8.RuneCountInString(value); {
	case n > longest:
		v.add(value, member, fmt.Sprintf("Member must have length less than or equal to %d", longest))
	case n == 0:
		v.add(value, member, "Member must have length greater than or equal to 1")
	}
	if !expression.MatchString(value) {
		v.add(value, member, "Member must satisfy regular expression pattern: "+pattern)
	}
}

// oneOf checks a header that may be left out.
func (v *violations) oneOf(value, member string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		v.add(value, member, "Member must satisfy enum value set: ["+strings.Join(allowed, ", ")+"]")
	}
}

// err is nil when nothing is wrong.
func (v violations) err() error {
	if len(v) == 0 {
		return nil
	}
	errors := "errors"
	if len(v) == 1 {
		errors = "error"
	}
	return &refusal{status: http.StatusBadRequest, kind: "ValidationException",
		message: fmt.Sprintf("%d validation %s detected: %s", len(v), errors, strings.Join(v, "; "))}
}

// validate checks the members of the request by the service model's constraints, before anything is looked up.
func (s *session) validate(query url.Values) error {
	var v violations
	h := s.R.Header
	v.text(s.name, "functionName", maxName, nameExpression, namePattern)
	if s.op == opInvokeAsync {
		return v.err()
	}
	if query.Has("Qualifier") {
		v.text(query.Get("Qualifier"), "qualifier", maxQualifier, qualifierExpression, qualifierPattern)
	}
	if s.op == opInvokeStream {
		v.oneOf(h.Get("X-Amz-Invocation-Type"), "invocationType", "RequestResponse", "DryRun")
	} else {
		v.oneOf(h.Get("X-Amz-Invocation-Type"), "invocationType", "Event", "RequestResponse", "DryRun")
	}
	v.oneOf(h.Get("X-Amz-Log-Type"), "logType", "None", "Tail")
	if tenant := h.Get("X-Amz-Tenant-Id"); tenant != "" {
		v.text(tenant, "tenantId", maxTenant, tenantExpression, tenantPattern)
	}
	if name := h.Get("X-Amz-Durable-Execution-Name"); name != "" && s.op == opInvoke {
		v.text(name, "durableExecutionName", maxDurable, durableExpression, durablePattern)
	}
	return v.err()
}

// parseName reads a name, an ARN, or a part of one, which is valid.
func parseName(text string) reference {
	m := nameExpression.FindStringSubmatch(text)
	return reference{
		region:    strings.TrimSuffix(m[3], ":"),
		account:   strings.TrimSuffix(m[9], ":"),
		name:      m[11],
		qualifier: m[13],
	}
}

// qualify takes the qualifier of the query, which must not contradict that of the name.
func (r *reference) qualify(query url.Values) error {
	q := query.Get("Qualifier")
	if q == "" {
		return nil
	}
	if r.qualifier != "" && r.qualifier != q {
		return errParameter("The derived qualifier from the function name does not match the specified qualifier.")
	}
	r.qualifier = q
	return nil
}

// invocationType is X-Amz-Invocation-Type.
type invocationType int

const (
	requestResponse invocationType = iota
	event
	dryRun
)

// prepare makes the invocation of the request, and says how it is invoked.
func (s *session) prepare() (invocationType, error) {
	h := s.R.Header
	kind := requestResponse
	switch v := h.Get("X-Amz-Invocation-Type"); {
	case s.op == opInvokeAsync:
		kind = event
	case v == "", v == "RequestResponse":
	case v == "DryRun":
		kind = dryRun
	default: // it is valid
		kind = event
	}
	s.inv = gateway.Invocation{RequestID: s.RequestID, TraceID: s.TraceID, Qualifier: s.qualifier, Payload: s.body}
	if s.Memory != nil {
		s.inv.Memory = s.Memory
	}
	s.inv.LogTail = kind == requestResponse && h.Get("X-Amz-Log-Type") == "Tail"
	if h.Get("X-Amz-Tenant-Id") != "" {
		return kind, errParameter("The invoked function is not enabled with tenancy configuration. Invoke the function without the tenant ID.")
	}
	if h.Get("X-Amz-Durable-Execution-Name") != "" {
		return kind, errParameter("The invoked function is not a durable function. Invoke the function without the durable execution name.")
	}
	if err := s.clientContext(kind, h.Get("X-Amz-Client-Context")); err != nil {
		return kind, err
	}
	return kind, s.payload(kind)
}

// clientContext: functions get it with synchronous invocations only (API reference, Invoke, ClientContext).
func (s *session) clientContext(kind invocationType, v string) error {
	if v == "" {
		return nil
	}
	if len(v) > maxClientContext {
		return errContent(fmt.Sprintf("Client context must be no more than %d bytes.", maxClientContext))
	}
	text, err := base64.StdEncoding.DecodeString(v)
	var object map[string]json.RawMessage
	if err != nil || json.Unmarshal(text, &object) != nil || object == nil {
		return errContent("Client context must be a valid Base64-encoded JSON object.")
	}
	if kind == requestResponse {
		s.inv.ClientContext = v
	}
	return nil
}

// payload checks the event. None is an empty object, as with AWS.
func (s *session) payload(kind invocationType) error {
	if kind == event && len(s.body) > gateway.MaxAsyncEvent {
		return &refusal{status: http.StatusRequestEntityTooLarge, kind: "RequestTooLargeException", user: true,
			message: fmt.Sprintf("%d byte payload is too large for the Event invocation type (limit %d bytes)", len(s.body), gateway.MaxAsyncEvent)}
	}
	if len(s.body) == 0 {
		s.inv.Payload = []byte("{}")
		return nil
	}
	if v := s.R.Header.Get("Content-Type"); !jsonType(v) {
		return &refusal{status: http.StatusUnsupportedMediaType, kind: "UnsupportedMediaTypeException", user: true,
			message: fmt.Sprintf("The content type of the Invoke request body is not JSON: %q", v)}
	}
	if !json.Valid(s.body) || !utf8.Valid(s.body) {
		return errContent("Could not parse request body into json: Could not parse payload into json: " + parseError(s.body))
	}
	return nil
}

// jsonType says whether a Content-Type can be that of JSON. SDKs call the payload octets; curl -d calls everything a
// form.
func jsonType(v string) bool {
	if v == "" {
		return true
	}
	t, _, err := mime.ParseMediaType(v)
	if err != nil {
		return false
	}
	switch t {
	case "application/json", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded":
		return true
	}
	return strings.HasSuffix(t, "+json") || strings.HasPrefix(t, "application/x-amz-json-")
}
