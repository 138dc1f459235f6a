// Package sigv4 checks AWS signatures (version 4) of requests whose signature is in the Authorization header. It signs
// the same request again with the AWS SDK's signer and compares.
package sigv4

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	algorithm = "AWS4-HMAC-SHA256"
	// timeFormat is that of X-Amz-Date.
	timeFormat = "20060102T150405Z"
	// maxSkew is how far the clocks of client and box may be apart (AWS: five minutes).
	maxSkew = 5 * time.Minute
)

// Error is a signature that is refused, as AWS says it.
type Error struct {
	// Code is the name of AWS's exception.
	Code    string
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Verifier checks the signatures of one service's clients.
type Verifier struct {
	access, secret, service string
	signer                  *v4.Signer
	now                     func() time.Time
}

// NewVerifier returns a Verifier of requests to a service, "dynamodb" for example, that are signed with one key. Any
// region will do; session tokens mean nothing to it and may be there, because functions send theirs.
func NewVerifier(access, secret, service string) *Verifier {
	return &Verifier{access: access, secret: secret, service: service, signer: v4.NewSigner(), now: time.Now}
}

// Verify checks a request with its body. The error is an *Error.
func (v *Verifier) Verify(r *http.Request, body []byte) error {
	given, err := parse(r)
	if err != nil {
		return err
	}
	if given.service != v.service {
		return incomplete(fmt.Sprintf("Credential should be scoped to correct service: '%s'. ", v.service))
	}
	if subtle.ConstantTimeCompare([]byte(given.access), []byte(v.access)) != 1 {
		return &Error{Code: "UnrecognizedClientException", Message: "The security token included in the request is invalid."}
	}
	if want, err := v.sign(r, given, body); err != nil || subtle.ConstantTimeCompare([]byte(want), []byte(given.signature)) != 1 {
		return invalid("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	// Last, so that a stranger does not learn the box's time.
	now := v.now().UTC()
	switch {
	case given.date.Before(now.Add(-maxSkew)):
		return invalid(fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 5 min.)",
			given.date.Format(timeFormat), now.Add(-maxSkew).Format(timeFormat), now.Format(timeFormat)))
	case given.date.After(now.Add(maxSkew)):
		return invalid(fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)",
			given.date.Format(timeFormat), now.Add(maxSkew).Format(timeFormat), now.Format(timeFormat)))
	}
	return nil
}

// sign returns the signature that the request should have.
func (v *Verifier) sign(r *http.Request, given signature, body []byte) (string, error) {
	// A request with the signed headers alone: the signer signs all that it is given.
	again, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, "http://"+r.Host, nil)
	if err != nil {
		return "", err
	}
	url := *r.URL
	url.Scheme, url.Host = "http", r.Host
	again.URL, again.Host = &url, r.Host
	for _, name := range given.headers {
		switch name {
		case "host":
		case "content-length":
			// The signer takes it from here.
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	sum := sha256.Sum256(body)
	creds := aws.Credentials{AccessKeyID: v.access, SecretAccessKey: v.secret}
	if err := v.signer.SignHTTP(r.Context(), creds, again, hex.EncodeToString(sum[:]), given.service, given.region, given.date); err != nil {
		return "", err
	}
	_, want, _ := strings.Cut(again.Header.Get("Authorization"), "Signature=")
	return want, nil
}

// signature is what an Authorization header says.
type signature struct {
	access, region, service string
	// headers are the names of the signed headers, in lower case.
	headers   []string
	signature string
	date      time.Time
}

// parse reads "AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/<service>/aws4_request, SignedHeaders=<a;b>,
// Signature=<hex>".
func parse(r *http.Request) (signature, error) {
	var s signature
	header := r.Header.Get("Authorization")
	if header == "" {
		return s, &Error{Code: "MissingAuthenticationTokenException", Message: "Request is missing Authentication Token"}
	}
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return s, incomplete("Authorization header must be signed with " + algorithm + ".")
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		fields[name] = value
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if fields[name] == "" {
			return s, incomplete(fmt.Sprintf("Authorization header requires '%s' parameter.", name))
		}
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return s, incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	s.access, s.region, s.service = scope[0], scope[2], scope[3]
	s.headers = strings.Split(fields["SignedHeaders"], ";")
	s.signature = fields["Signature"]
	// What decides on the meaning of the request must be signed. The body always is.
	for _, name := range []string{"host", "x-amz-date", "x-amz-target"} {
		if !slices.Contains(s.headers, name) && (name != "x-amz-target" || r.Header.Get(name) != "") {
			return s, incomplete(fmt.Sprintf("'%s' must be a signed header in the Authorization header.", name))
		}
	}
	if slices.Contains(s.headers, "content-length") && r.ContentLength < 0 {
		return s, incomplete("'Content-Length' is signed and was not sent.")
	}
	date, err := time.Parse(timeFormat, r.Header.Get("X-Amz-Date"))
	if err != nil {
		return s, incomplete("Authorization header requires existence of a 'X-Amz-Date' header in the form " + strconv.Quote(timeFormat) + ".")
	}
	if date.Format("20060102") != scope[1] {
		return s, invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	}
	s.date = date
	return s, nil
}

func incomplete(message string) error {
	return &Error{Code: "IncompleteSignatureException", Message: message}
}

func invalid(message string) error {
	return &Error{Code: "InvalidSignatureException", Message: message}
}
