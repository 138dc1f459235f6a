// Package sigv2 checks what S3 clients sign with AWS signatures of version 2: presigned links and the policies of forms, which
// boto3 makes by default in the oldest regions (us-east-1, us-west-2, eu-west-1, ...). Whoever has one found right signs the
// request again with version 4: what is signed here is less, see Request.
// Source: S3 user guide, "Signing and authenticating REST requests (AWS signature version 2)".
package sigv2

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/sigv4"
)

// Parameters of a presigned link.
const (
	QueryAccessKeyID = "AWSAccessKeyId"
	querySignature   = "Signature"
	queryExpires     = "Expires"
)

const (
	// maxExpires is how long a link may be valid from now on: as long as one of version 4 (AWS: seven days).
	maxExpires = 7 * 24 * time.Hour
	// maxQuery bounds a query in bytes, maxParameters in parameters.
	maxQuery, maxParameters = 16 << 10, 100
	amzPrefix               = "x-amz-"
)

// signed are the parameters that are part of what is signed. Any other parameter that makes another operation of a request is
// none that a link can have.
var signed = []string{
	"accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location", "logging", "metrics",
	"notification", "object-lock", "partNumber", "policy", "replication", "requestPayment", "response-cache-control",
	"response-content-disposition", "response-content-encoding", "response-content-language", "response-content-type", "response-expires",
	"restore", "select", "select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions",
	"website",
}

// unsigned are the parameters that a link may have though version 2 does not sign them: they choose what of a list is shown.
var unsigned = []string{
	"continuation-token", "delimiter", "encoding-type", "fetch-owner", "key-marker", "list-type", "marker", "max-keys", "max-parts",
	"max-uploads", "part-number-marker", "prefix", "start-after", "upload-id-marker", "version-id-marker",
}

// Presigned says whether a request is a link of version 2, right or wrong.
func Presigned(r *http.Request) bool {
	if !strings.Contains(r.URL.RawQuery, QueryAccessKeyID+"=") && !strings.Contains(r.URL.RawQuery, querySignature+"=") {
		return false
	}
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if name, _, _ := strings.Cut(part, "="); name == QueryAccessKeyID || name == querySignature {
			return true
		}
	}
	return false
}

// AccessKeyID returns whose link a request says it is, without checking anything.
func AccessKeyID(r *http.Request) string {
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if value, ok := strings.CutPrefix(part, QueryAccessKeyID+"="); ok {
			id, _ := url.PathUnescape(value)
			return id
		}
	}
	return ""
}

// Request is what a link asks for.
type Request struct {
	AccessKeyID string
	// Query has the parameters that are left when those of the signature are gone.
	Query string
	// Header has the headers that the link had as parameters. They were signed as headers.
	Header http.Header
}

// parameter is one of a query; one without "=" has no value.
type parameter struct {
	name, value string
	valued      bool
}

// Verify checks a link to S3. path is what is signed of the host and the path: "/bucket/key", encoded as on the wire, with the
// bucket also where the host names it. The error is a *sigv4.Error.
//
// Signed are the method, the path, the expiry, Content-MD5, Content-Type, every x-amz- header, and the parameters that say which
// operation it is; neither the host nor the body. A parameter that is not signed and not known to be harmless is refused.
func Verify(r *http.Request, path string, keys sigv4.Keys, now time.Time) (Request, error) {
	if len(r.Header["Authorization"]) > 0 {
		return Request{}, incomplete("Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified")
	}
	parameters, err := parse(r.URL.RawQuery)
	if err != nil {
		return Request{}, err
	}
	var given, expires string
	var resource []parameter
	var rest []parameter
	out := Request{Header: http.Header{}}
	for _, p := range parameters {
		lower := strings.ToLower(p.name)
		switch {
		case p.name == QueryAccessKeyID:
			out.AccessKeyID = p.value
		case p.name == querySignature:
			given = p.value
		case p.name == queryExpires:
			expires = p.value
		case slices.Contains(signed, p.name):
			resource, rest = append(resource, p), append(rest, p)
		case slices.Contains(unsigned, p.name):
			rest = append(rest, p)
		case strings.HasPrefix(lower, "x-amz-algorithm"), strings.HasPrefix(lower, "x-amz-credential"), strings.HasPrefix(lower, "x-amz-signature"):
			return Request{}, incomplete("Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified")
		case strings.HasPrefix(lower, amzPrefix):
			name := http.CanonicalHeaderKey(lower)
			if _, twice := r.Header[name]; twice || out.Header.Get(name) != "" || strings.ContainsAny(p.value, "\r\n") || !validHeader(lower) {
				return Request{}, incomplete("The header " + lower + " is given twice, or has no valid value.")
			}
			out.Header.Set(name, p.value)
		case lower == "content-type", lower == "content-md5":
			// They say which header was signed; the header itself is what counts.
		default:
			return Request{}, incomplete("The parameter " + p.name + " is not signed by signature version 2: sign with version 4 (AWS4-HMAC-SHA256).")
		}
	}
	if out.AccessKeyID == "" || given == "" || expires == "" {
		return Request{}, &sigv4.Error{Reason: sigv4.Missing, Code: "MissingAuthenticationTokenException", Message: "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters"}
	}
	secret, known := keys(out.AccessKeyID)
	if !known {
		return Request{}, &sigv4.Error{Reason: sigv4.UnknownKey, Code: "UnrecognizedClientException", Message: "The AWS Access Key Id you provided does not exist in our records."}
	}
	right := subtle.ConstantTimeCompare([]byte(Sign(secret, canonical(r, path, expires, resource, out.Header))), []byte(given)) == 1
	if !right && strings.Count(path, "/") == 1 {
		// Of a bucket, boto3 signs "/bucket/" and asks for "/bucket"; that is the same.
		right = subtle.ConstantTimeCompare([]byte(Sign(secret, canonical(r, path+"/", expires, resource, out.Header))), []byte(given)) == 1
	}
	if !right {
		return Request{}, &sigv4.Error{Reason: sigv4.Mismatch, Code: "InvalidSignatureException", Message: "The request signature we calculated does not match the signature you provided. Check your key and signing method."}
	}
	seconds, err := strconv.ParseInt(expires, 10, 64)
	switch {
	case err != nil || seconds < 0:
		return Request{}, denied("Invalid date (should be seconds since epoch): " + expires)
	case seconds > now.Add(maxExpires+sigv4.MaxSkew).Unix():
		return Request{}, denied("Expires must be at most seven days from now")
	case seconds < now.Unix():
		return Request{}, &sigv4.Error{Reason: sigv4.Expired, Code: "InvalidSignatureException", Message: "Request has expired"}
	}
	out.Query = encode(rest)
	return out, nil
}

// Sign returns the signature of a text: base64 of HMAC-SHA1.
func Sign(secret, text string) string {
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// VerifyPolicy says whether a signature is that of a form's policy, which is as the form has it, in base64.
func VerifyPolicy(secret, policy, signature string) bool {
	return subtle.ConstantTimeCompare([]byte(Sign(secret, policy)), []byte(signature)) == 1
}

// parse reads a query. Values are unescaped, a plus sign stays one: clients sign it so.
func parse(query string) ([]parameter, error) {
	if len(query) > maxQuery {
		return nil, incomplete("The query is too long.")
	}
	var all []parameter
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		var p parameter
		p.name, p.value, p.valued = strings.Cut(part, "=")
		name, err := url.PathUnescape(p.name)
		value, err2 := url.PathUnescape(p.value)
		if err != nil || err2 != nil || name != p.name && !strings.EqualFold(name[:min(len(name), len(amzPrefix))], amzPrefix) {
			return nil, incomplete("The query could not be parsed.")
		}
		p.name, p.value = name, value
		if slices.ContainsFunc(all, func(q parameter) bool { return strings.EqualFold(p.name, q.name) }) {
			return nil, incomplete("The parameter " + p.name + " is given twice.")
		}
		if all = append(all, p); len(all) > maxParameters {
			return nil, incomplete("The query has too many parameters.")
		}
	}
	return all, nil
}

// canonical returns what is signed.
func canonical(r *http.Request, path, expires string, resource []parameter, hoisted http.Header) string {
	var b strings.Builder
	for _, line := range []string{r.Method, r.Header.Get("Content-Md5"), r.Header.Get("Content-Type"), expires} {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	headers := map[string]string{}
	for _, from := range []http.Header{r.Header, hoisted} {
		for name, values := range from {
			lower := strings.ToLower(name)
			if !strings.HasPrefix(lower, amzPrefix) {
				continue
			}
			trimmed := make([]string, len(values))
			for i, value := range values {
				trimmed[i] = strings.TrimSpace(value)
			}
			headers[lower] = strings.Join(trimmed, ",")
		}
	}
	names := make([]string, 0, len(headers))
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.WriteString(name + ":" + headers[name] + "\n")
	}
	b.WriteString(path)
	slices.SortFunc(resource, func(x, y parameter) int { return strings.Compare(x.name, y.name) })
	separator := byte('?')
	for _, p := range resource {
		b.WriteByte(separator)
		separator = '&'
		b.WriteString(p.name)
		if p.valued {
			b.WriteString("=" + p.value)
		}
	}
	return b.String()
}

// encode writes parameters such that every parser reads them in one way.
func encode(parameters []parameter) string {
	parts := make([]string, len(parameters))
	for i, p := range parameters {
		parts[i] = url.QueryEscape(p.name) + "=" + strings.ReplaceAll(url.QueryEscape(p.value), "+", "%20")
	}
	return strings.Join(parts, "&")
}

// validHeader: letters, digits and hyphens.
func validHeader(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func incomplete(message string) error {
	return &sigv4.Error{Reason: sigv4.Incomplete, Code: "IncompleteSignatureException", Message: message}
}

func denied(message string) error {
	return &sigv4.Error{Reason: sigv4.Missing, Code: "AccessDenied", Message: message}
}
