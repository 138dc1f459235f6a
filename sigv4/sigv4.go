// Package sigv4 checks and makes AWS signatures, version 4, in the Authorization header or in the query (presigned).
// Source: AWS Identity and Access Management user guide, "AWS Signature Version 4 for API requests".
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm = "AWS4-HMAC-SHA256"
	terminal  = "aws4_request"
	// timeFormat is that of X-Amz-Date.
	timeFormat = "20060102T150405Z"
	dateFormat = "20060102"
	// serviceS3 has rules of its own: its paths are encoded once, and its payloads may be left unsigned.
	serviceS3 = "s3"
)

// Names of what signed requests carry, as header or as parameter of a presigned query.
const (
	HeaderDate          = "X-Amz-Date"
	HeaderSecurityToken = "X-Amz-Security-Token"
	HeaderContentSHA256 = "X-Amz-Content-Sha256"

	queryAlgorithm     = "X-Amz-Algorithm"
	queryCredential    = "X-Amz-Credential"
	queryExpires       = "X-Amz-Expires"
	querySignedHeaders = "X-Amz-SignedHeaders"
	querySignature     = "X-Amz-Signature"
)

// Values of X-Amz-Content-Sha256 other than the hex SHA-256 of the body (S3 API reference, "Signature calculations for
// the Authorization header").
const (
	UnsignedPayload          = "UNSIGNED-PAYLOAD"
	StreamingPayload         = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	StreamingPayloadTrailer  = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	StreamingUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// Credentials sign requests.
type Credentials struct {
	AccessKeyID, SecretAccessKey string
	// SessionToken is sent as X-Amz-Security-Token when it is not empty.
	SessionToken string
}

// Scope is what a signature is valid for.
type Scope struct {
	// Date is the UTC day, "20261122".
	Date            string
	Region, Service string
}

// String returns the scope as it is signed.
func (s Scope) String() string {
	return s.Date + "/" + s.Region + "/" + s.Service + "/" + terminal
}

// Key returns the key that signs in the scope, for whoever holds the secret.
func (s Scope) Key(secret string) []byte {
	key := []byte("AWS4" + secret)
	for _, part := range [...]string{s.Date, s.Region, s.Service, terminal} {
		key = mac(key, part)
	}
	return key
}

// Sign signs r in its Authorization header, in place of what it has there: its host, Content-Type and all X-Amz-
// headers, of which it sets the date, the session token and, for S3, the payload. payload is the hex SHA-256 of the
// body (HashPayload) or, for S3, one of the values above.
func Sign(r *http.Request, c Credentials, region, service, payload string, now time.Time) {
	date := now.UTC().Format(timeFormat)
	r.Header.Set(HeaderDate, date)
	r.Header.Del(HeaderSecurityToken)
	if c.SessionToken != "" {
		r.Header.Set(HeaderSecurityToken, c.SessionToken)
	}
	if service == serviceS3 {
		r.Header.Set(HeaderContentSHA256, payload)
	}
	headers := []string{"host"}
	for name := range r.Header {
		if name == "Content-Type" || mustBeSigned(name) {
			headers = append(headers, strings.ToLower(name))
		}
	}
	slices.Sort(headers)
	scope := Scope{Date: date[:len(dateFormat)], Region: region, Service: service}
	query, _ := url.ParseQuery(r.URL.RawQuery)
	text := canonical(r, service, query, headers, payload)
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		algorithm, c.AccessKeyID, scope, strings.Join(headers, ";"), sign(scope.Key(c.SecretAccessKey), scope, date, text)))
}

// HashPayload returns the hex SHA-256 of a body.
func HashPayload(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// sign returns the signature of a canonical request.
func sign(key []byte, scope Scope, date, canonical string) string {
	return hex.EncodeToString(mac(key, algorithm+"\n"+date+"\n"+scope.String()+"\n"+HashPayload([]byte(canonical))))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// canonical returns the one form of a request that is signed. headers are valid names (validName), which is why no
// other request has the same form. query is r's, without the signature itself.
func canonical(r *http.Request, service string, query url.Values, headers []string, payload string) string {
	var b strings.Builder
	b.WriteString(r.Method)
	b.WriteByte('\n')
	b.WriteString(canonicalPath(r.URL, service))
	b.WriteByte('\n')
	writeQuery(&b, query)
	b.WriteByte('\n')
	for _, name := range headers {
		b.WriteString(name)
		b.WriteByte(':')
		for i, value := range headerValues(r, name) {
			if i > 0 {
				b.WriteByte(',')
			}
			writeTrimmed(&b, value)
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(strings.Join(headers, ";"))
	b.WriteByte('\n')
	b.WriteString(payload)
	return b.String()
}

// canonicalPath: S3 encodes the path once, the others encode what is on the wire, which is encoded already, once more.
func canonicalPath(u *url.URL, service string) string {
	path := u.EscapedPath()
	if service == serviceS3 {
		path = u.Path
	}
	if path == "" {
		return "/"
	}
	var b strings.Builder
	escape(&b, path, true)
	return b.String()
}

func writeQuery(b *strings.Builder, query url.Values) {
	pairs := make([][2]string, 0, len(query))
	for name, values := range query {
		for _, value := range values {
			pairs = append(pairs, [2]string{escaped(name), escaped(value)})
		}
	}
	// By encoded name, then by encoded value, and not by the text "name=value", in which "=" would count.
	slices.SortFunc(pairs, func(x, y [2]string) int {
		if c := strings.Compare(x[0], y[0]); c != 0 {
			return c
		}
		return strings.Compare(x[1], y[1])
	})
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0])
		b.WriteByte('=')
		b.WriteString(p[1])
	}
}

// headerValues returns the values of a header by its lower-case name, nil when the request does not have it.
func headerValues(r *http.Request, name string) []string {
	switch name {
	case "host":
		return []string{r.Host}
	case "content-length":
		// The server takes it out of the header of some requests.
		if r.ContentLength < 0 {
			return nil
		}
		return []string{strconv.FormatInt(r.ContentLength, 10)}
	}
	if values := r.Header[textproto.CanonicalMIMEHeaderKey(name)]; values != nil || name != "transfer-encoding" {
		return values
	}
	return r.TransferEncoding // Go keeps it apart from the header
}

// writeTrimmed writes a value without the spaces around it, and with one space for several in a row.
func writeTrimmed(b *strings.Builder, value string) {
	value = strings.Trim(value, " \t")
	space := false
	for i := range len(value) {
		c := value[i]
		if c == ' ' && space {
			continue
		}
		space = c == ' '
		b.WriteByte(c)
	}
}

func escaped(s string) string {
	var b strings.Builder
	escape(&b, s, false)
	return b.String()
}

// escape writes s with all bytes but RFC 3986's unreserved ones as %XX.
func escape(b *strings.Builder, s string, keepSlash bool) {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '~', c == '/' && keepSlash:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
}

// validName: the characters of a header's name (RFC 9110, token) in lower case.
func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return name != ""
}

// mustBeSigned: a header that a service may act on. X-Amz-Cf-Id is what CloudFront adds on the way.
func mustBeSigned(name string) bool {
	return len(name) > 6 && strings.EqualFold(name[:6], "x-amz-") && !strings.EqualFold(name, "x-amz-cf-id")
}

// Sign returns the signature of a text in the scope, as the policy of a form is signed (S3 API reference, "Browser-based uploads
// using POST").
func (s Scope) Sign(secret, text string) string { return hex.EncodeToString(mac(s.Key(secret), text)) }

// Verify says whether a signature is that of a text in the scope.
func (s Scope) Verify(secret, text, signature string) bool {
	return subtle.ConstantTimeCompare([]byte(s.Sign(secret, text)), []byte(signature)) == 1
}
