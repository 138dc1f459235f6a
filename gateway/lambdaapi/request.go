package lambdaapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/edge-serverless-box/esb/gateway"
)

const (
	// The patterns of the API reference (Invoke, FunctionName and Qualifier), which the messages name.
	namePattern      = `(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?`
	qualifierPattern = `\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+`
	maxName          = 256
	maxQualifier     = 128
)

var (
	nameExpression      = regexp.MustCompile(`^(?:` + namePattern + `)$`)
	qualifierExpression = regexp.MustCompile(`^(?:` + qualifierPattern + `)$`)
)

// reference is a function as a request names it; what it leaves out is empty.
type reference struct {
	region, account, name, qualifier string
}

// parseName reads a name, an ARN, or a part of one.
func parseName(text string) (reference, error) {
	m := nameExpression.FindStringSubmatch(text)
	if m == nil || len(text) > maxName {
		return reference{}, errValidation(text, "functionName", "Member must satisfy regular expression pattern: "+namePattern)
	}
	return reference{
		region:    strings.TrimSuffix(m[3], ":"),
		account:   strings.TrimSuffix(m[9], ":"),
		name:      m[11],
		qualifier: m[13],
	}, nil
}

// qualify takes the qualifier of the query, which must not contradict that of the name.
func (r *reference) qualify(query url.Values) error {
	q := query.Get("Qualifier")
	if q == "" {
		return nil
	}
	if len(q) > maxQualifier || !qualifierExpression.MatchString(q) {
		return errValidation(q, "qualifier", "Member must satisfy regular expression pattern: "+qualifierPattern)
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
	case v == "Event" && s.op == opInvoke:
		kind = event
	case s.op == opInvokeStream:
		return kind, errValidation(v, "invocationType", "Member must satisfy enum value set: [RequestResponse, DryRun]")
	default:
		return kind, errValidation(v, "invocationType", "Member must satisfy enum value set: [Event, RequestResponse, DryRun]")
	}
	s.inv = gateway.Invocation{RequestID: s.RequestID, TraceID: s.TraceID, Qualifier: s.qualifier, Payload: s.body}
	if s.Memory != nil {
		s.inv.Memory = s.Memory
	}
	switch v := h.Get("X-Amz-Log-Type"); v {
	case "", "None":
	case "Tail":
		s.inv.LogTail = kind == requestResponse
	default:
		return kind, errValidation(v, "logType", "Member must satisfy enum value set: [None, Tail]")
	}
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
	if kind == event && len(s.body) > maxAsync {
		return &refusal{status: http.StatusRequestEntityTooLarge, kind: "RequestTooLargeException", user: true,
			message: fmt.Sprintf("%d byte payload is too large for the Event invocation type (limit %d bytes)", len(s.body), maxAsync)}
	}
	if len(s.body) == 0 {
		s.inv.Payload = []byte("{}")
		return nil
	}
	if v := s.R.Header.Get("Content-Type"); !jsonType(v) {
		return &refusal{status: http.StatusUnsupportedMediaType, kind: "UnsupportedMediaTypeException", user: true,
			message: fmt.Sprintf("The content type of the Invoke request body is not JSON: %q", v)}
	}
	if !json.Valid(s.body) {
		var v any
		err := json.Unmarshal(s.body, &v)
		return errContent(fmt.Sprintf("Could not parse request body into json: %v", err))
	}
	if !utf8.Valid(s.body) {
		for i := 0; i < len(s.body); {
			r, size := utf8.DecodeRune(s.body[i:])
			if r == utf8.RuneError && size == 1 {
				return errContent(fmt.Sprintf("Could not parse request body into json: Invalid UTF-8 start byte 0x%x", s.body[i]))
			}
			i += size
		}
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
