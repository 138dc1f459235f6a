package sigv4

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxSkew is how far the clocks of client and box may be apart (AWS: five minutes).
	MaxSkew = 5 * time.Minute
	// maxExpires is how long a presigned request may be valid (AWS: seven days).
	maxExpires = 7 * 24 * time.Hour
)

// Reason says why a signature is refused.
type Reason int

// Reasons. Each has the exception of AWS's JSON services and the code of S3's.
const (
	// Missing: the request is not signed.
	Missing Reason = iota
	// Incomplete: what says how the request is signed is missing, malformed, or for another service.
	Incomplete
	// UnknownKey: nobody has the access key.
	UnknownKey
	// Mismatch: the signature is another one.
	Mismatch
	// Skewed: the clocks are too far apart.
	Skewed
	// Expired: the presigned request was valid until some time ago.
	Expired
)

// Error is a signature that is refused.
type Error struct {
	Reason Reason
	// Code is the name of the exception with which AWS's JSON services answer.
	Code string
	// Message is for the client, in AWS's words.
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// S3Code returns the code with which S3 answers (S3 API reference, "Error responses").
func (e *Error) S3Code() string {
	switch e.Reason {
	case Missing, Expired:
		return "AccessDenied"
	case Incomplete:
		return "AuthorizationHeaderMalformed"
	case UnknownKey:
		return "InvalidAccessKeyId"
	case Skewed:
		return "RequestTimeTooSkewed"
	case Mismatch:
	}
	return "SignatureDoesNotMatch"
}

// Keys finds the secret of an access key.
type Keys func(accessKeyID string) (secret string, ok bool)

// OneKey returns Keys that know one.
func OneKey(accessKeyID, secret string) Keys {
	return func(id string) (string, bool) {
		return secret, subtle.ConstantTimeCompare([]byte(id), []byte(accessKeyID)) == 1
	}
}

// Verifier checks the signatures of one service's clients. It is safe for concurrent use.
type Verifier struct {
	service string
	keys    Keys
	now     func() time.Time
}

// NewVerifier returns a Verifier of requests to a service, "dynamodb" for example. Any region will do; a session token
// must be signed and means nothing else.
func NewVerifier(service string, keys Keys) *Verifier {
	return &Verifier{service: service, keys: keys, now: time.Now}
}

// Signature is one that was found right.
type Signature struct {
	// AccessKeyID is who signed, SessionToken the token that came with it.
	AccessKeyID, SessionToken string
	Scope                     Scope
	// Date is when it was signed.
	Date time.Time
	// Headers are the signed headers in lower case.
	Headers []string
	// Payload is what is signed of the body: its hex SHA-256, or one of UnsignedPayload and the Streaming values.
	Payload string
	// Presigned is true for a signature in the query.
	Presigned bool
	// Hex is the signature itself, with which the chain of signatures of a streaming payload begins.
	Hex string

	expires time.Duration
	query   url.Values
}

// Verify checks a request together with its whole body. The error is an *Error.
func (v *Verifier) Verify(r *http.Request, body []byte) (Signature, error) {
	given, err := v.parse(r)
	if err != nil {
		return Signature{}, err
	}
	given.Payload = HashPayload(body)
	return v.check(r, given)
}

// Head checks all of a request that can be checked before its body is there: how, for which service and with which
// headers it says that it is signed, whether the key is known, and whether the clocks agree; the signature itself too when
// the request says in X-Amz-Content-Sha256 which body is signed. A body is worth reading then, for Complete. The error is an
// *Error.
func (v *Verifier) Head(r *http.Request) (Signature, error) {
	given, err := v.parse(r)
	if err != nil {
		return Signature{}, err
	}
	if claimed := r.Header.Get(HeaderContentSHA256); isHash(claimed) && claimed == strings.ToLower(claimed) {
		given.Payload = claimed
		return v.check(r, given)
	}
	if _, ok := v.keys(given.AccessKeyID); !ok {
		return Signature{}, errUnknownKey()
	}
	if err := v.timely(given); err != nil {
		return Signature{}, err
	}
	return given, nil
}

// Complete checks a signature that Head returned together with the whole body of the same request. The error is an *Error.
func (v *Verifier) Complete(r *http.Request, given Signature, body []byte) (Signature, error) {
	hash := HashPayload(body)
	if given.Payload == "" {
		given.Payload = hash
		return v.check(r, given)
	}
	if subtle.ConstantTimeCompare([]byte(given.Payload), []byte(hash)) != 1 {
		return Signature{}, errOther()
	}
	return given, nil
}

func isHash(text string) bool {
	sum, err := hex.DecodeString(text)
	return err == nil && len(sum) == sha256.Size
}

// VerifyHead checks a request but for its body, which must be what Signature.Payload says: read it through
// Signature.Body. It is for S3, whose requests say in X-Amz-Content-Sha256 what is signed of the body. The error is an
// *Error.
func (v *Verifier) VerifyHead(r *http.Request) (Signature, error) {
	given, err := v.parse(r)
	if err != nil {
		return Signature{}, err
	}
	given.Payload = r.Header.Get(HeaderContentSHA256)
	if given.Presigned && given.Payload == "" {
		given.Payload = given.query.Get(HeaderContentSHA256)
		if given.Payload == "" {
			given.Payload = UnsignedPayload
		}
	}
	switch given.Payload {
	case UnsignedPayload, StreamingPayload, StreamingPayloadTrailer, StreamingUnsignedTrailer:
	case "":
		return Signature{}, incomplete("Missing required header for this request: x-amz-content-sha256")
	default:
		if !isHash(given.Payload) {
			return Signature{}, incomplete("x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.")
		}
	}
	return v.check(r, given)
}

// ErrPayload says that a body is not the one that was signed (S3: XAmzContentSHA256Mismatch).
var ErrPayload = errors.New("the provided 'x-amz-content-sha256' header does not match what was computed")

// Body returns body such that reading it ends in ErrPayload in place of io.EOF when it is not what was signed. A body
// that is not signed as a whole comes back as it is: that of the Streaming values is for the caller to decode.
func (s *Signature) Body(body io.ReadCloser) io.ReadCloser {
	want, err := hex.DecodeString(s.Payload)
	if err != nil || len(want) != sha256.Size {
		return body
	}
	return &checkedBody{ReadCloser: body, sum: sha256.New(), want: want}
}

type checkedBody struct {
	io.ReadCloser
	sum  hash.Hash
	want []byte
}

// Read implements io.Reader.
func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && subtle.ConstantTimeCompare(b.sum.Sum(nil), b.want) != 1 {
		err = ErrPayload
	}
	return n, err
}

// check compares the signature with the one that the request should have.
func (v *Verifier) check(r *http.Request, given Signature) (Signature, error) {
	secret, ok := v.keys(given.AccessKeyID)
	if !ok {
		return Signature{}, errUnknownKey()
	}
	want := sign(given.Scope.Key(secret), given.Scope, given.Date.Format(timeFormat),
		canonical(r, v.service, given.query, given.Headers, given.Payload))
	if subtle.ConstantTimeCompare([]byte(want), []byte(given.Hex)) != 1 {
		return Signature{}, errOther()
	}
	if err := v.timely(given); err != nil {
		return Signature{}, err
	}
	given.query = nil
	return given, nil
}

// timely says whether the clocks agree, and a presigned request is still valid.
func (v *Verifier) timely(given Signature) error {
	now := v.now().UTC()
	switch {
	case given.Date.After(now.Add(MaxSkew)):
		return &Error{Reason: Skewed, Code: codeInvalid, Message: fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)",
			given.Date.Format(timeFormat), now.Add(MaxSkew).Format(timeFormat), now.Format(timeFormat))}
	case given.Presigned && given.Date.Add(given.expires).Before(now):
		return &Error{Reason: Expired, Code: codeInvalid, Message: fmt.Sprintf("Signature expired: %s is now earlier than %s",
			given.Date.Add(given.expires).Format(timeFormat), now.Format(timeFormat))}
	case !given.Presigned && given.Date.Before(now.Add(-MaxSkew)):
		return &Error{Reason: Skewed, Code: codeInvalid, Message: fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 5 min.)",
			given.Date.Format(timeFormat), now.Add(-MaxSkew).Format(timeFormat), now.Format(timeFormat))}
	}
	return nil
}

// parse reads how a request says that it is signed.
func (v *Verifier) parse(r *http.Request) (s Signature, err error) {
	if s.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return s, incomplete("The query could not be parsed.")
	}
	authorizations := r.Header["Authorization"]
	s.Presigned = s.query.Has(queryAlgorithm) || s.query.Has(querySignature) || s.query.Has(queryCredential)
	var credential, date, headers string
	switch {
	case s.Presigned && len(authorizations) > 0, len(authorizations) > 1:
		return s, incomplete("Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified.")
	case s.Presigned:
		credential, headers, date, err = s.parseQuery()
	case len(authorizations) == 1 && authorizations[0] != "":
		credential, headers, err = s.parseHeader(authorizations[0])
		if dates := r.Header[HeaderDate]; len(dates) == 1 {
			date = dates[0]
		}
		s.SessionToken = r.Header.Get(HeaderSecurityToken)
	default:
		return s, &Error{Reason: Missing, Code: "MissingAuthenticationTokenException", Message: "Request is missing Authentication Token"}
	}
	if err != nil {
		return s, err
	}
	if s.Date, err = time.Parse(timeFormat, date); err != nil {
		return s, incomplete("Authorization header requires existence of a 'X-Amz-Date' header in the form " + strconv.Quote(timeFormat) + ".")
	}
	if err := s.parseCredential(credential, v.service); err != nil {
		return s, err
	}
	return s, s.parseHeaders(r, headers)
}

// parseHeader reads "AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/<service>/aws4_request, SignedHeaders=<a;b>,
// Signature=<hex>".
func (s *Signature) parseHeader(header string) (credential, headers string, err error) {
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return "", "", incomplete("Authorization header requires '" + algorithm + "'.")
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		fields[name] = value
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if fields[name] == "" {
			return "", "", incomplete(fmt.Sprintf("Authorization header requires '%s' parameter.", name))
		}
	}
	s.Hex = fields["Signature"]
	return fields["Credential"], fields["SignedHeaders"], nil
}

// parseQuery reads the parameters of a presigned request, and takes the signature out of the query.
func (s *Signature) parseQuery() (credential, headers, date string, err error) {
	for _, name := range []string{queryAlgorithm, queryCredential, HeaderDate, queryExpires, querySignedHeaders, querySignature} {
		if values := s.query[name]; len(values) != 1 || values[0] == "" {
			return "", "", "", incomplete(fmt.Sprintf("AWS query-string parameters must include '%s' once.", name))
		}
	}
	if s.query.Get(queryAlgorithm) != algorithm {
		return "", "", "", incomplete("X-Amz-Algorithm only supports \"" + algorithm + "\".")
	}
	seconds, err := strconv.ParseUint(s.query.Get(queryExpires), 10, 31)
	if s.expires = time.Duration(seconds) * time.Second; err != nil || s.expires > maxExpires {
		return "", "", "", incomplete(fmt.Sprintf("X-Amz-Expires must be a number of seconds, at most %d.", int(maxExpires.Seconds())))
	}
	s.SessionToken = s.query.Get(HeaderSecurityToken)
	s.Hex = s.query.Get(querySignature)
	s.query.Del(querySignature)
	return s.query.Get(queryCredential), s.query.Get(querySignedHeaders), s.query.Get(HeaderDate), nil
}

// parseHeaders reads the names of the signed headers. What decides on the meaning of a request must be among them.
func (s *Signature) parseHeaders(r *http.Request, headers string) error {
	s.Headers = strings.Split(headers, ";")
	for _, name := range s.Headers {
		if !validName(name) {
			return incomplete("SignedHeaders must be names of headers in lower case, separated by ';'.")
		}
		if headerValues(r, name) == nil {
			return mismatch(fmt.Sprintf("The signed header '%s' was not sent.", name))
		}
	}
	if !slices.Contains(s.Headers, "host") {
		return incomplete("'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range r.Header {
		if mustBeSigned(name) && !slices.Contains(s.Headers, strings.ToLower(name)) {
			return incomplete(fmt.Sprintf("'%s' must be a 'SignedHeader' in the AWS Authorization.", strings.ToLower(name)))
		}
	}
	return nil
}

func (s *Signature) parseCredential(credential, service string) error {
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || scope[4] != terminal {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	s.AccessKeyID, s.Scope = scope[0], Scope{Date: scope[1], Region: scope[2], Service: scope[3]}
	if s.Scope.Service != service {
		return &Error{Reason: Incomplete, Code: codeInvalid, Message: fmt.Sprintf("Credential should be scoped to correct service: '%s'. ", service)}
	}
	if s.Date.Format(dateFormat) != s.Scope.Date {
		return mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	}
	return nil
}

func errUnknownKey() error {
	return &Error{Reason: UnknownKey, Code: "UnrecognizedClientException", Message: "The security token included in the request is invalid."}
}

func errOther() error {
	return mismatch("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}

const codeInvalid = "InvalidSignatureException"

func incomplete(message string) error {
	return &Error{Reason: Incomplete, Code: "IncompleteSignatureException", Message: message}
}

func mismatch(message string) error {
	return &Error{Reason: Mismatch, Code: codeInvalid, Message: message}
}
