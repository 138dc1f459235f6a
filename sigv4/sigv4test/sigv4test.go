// Package sigv4test makes requests for tests that the AWS SDK for Go does not make.
package sigv4test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/sigv4"
)

// SignChunks signs r and gives it data as its body, signed in chunks of some size after S3's documentation, with a signed
// trailer when that has a name.
func SignChunks(r *http.Request, c sigv4.Credentials, region string, data []byte, chunk int, trailer, value string) {
	payload := sigv4.StreamingPayload
	r.Header.Set("X-Amz-Decoded-Content-Length", strconv.Itoa(len(data)))
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" {
		r.Header.Set("Content-Encoding", "aws-chunked,"+encoding)
	} else {
		r.Header.Set("Content-Encoding", "aws-chunked")
	}
	if trailer != "" {
		payload = sigv4.StreamingPayloadTrailer
		r.Header.Set("X-Amz-Trailer", trailer)
	}
	sigv4.Sign(r, c, region, "s3", payload, time.Now())
	_, previous, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	date := r.Header.Get("X-Amz-Date")
	scope := sigv4.Scope{Date: date[:8], Region: region, Service: "s3"}
	next := func(kind string, rest ...string) string {
		h := hmac.New(sha256.New, scope.Key(c.SecretAccessKey))
		_, _ = io.WriteString(h, strings.Join(append([]string{kind, date, scope.String(), previous}, rest...), "\n"))
		previous = hex.EncodeToString(h.Sum(nil))
		return previous
	}
	var b bytes.Buffer
	empty := sigv4.HashPayload(nil)
	for rest := data; ; {
		part := rest[:min(chunk, len(rest))]
		rest = rest[len(part):]
		fmt.Fprintf(&b, "%x;chunk-signature=%s\r\n", len(part), next("AWS4-HMAC-SHA256-PAYLOAD", empty, sigv4.HashPayload(part)))
		if len(part) == 0 {
			break
		}
		b.Write(part)
		b.WriteString("\r\n")
	}
	if trailer != "" {
		fmt.Fprintf(&b, "%s:%s\r\n", trailer, value)
		fmt.Fprintf(&b, "x-amz-trailer-signature:%s\r\n", next("AWS4-HMAC-SHA256-TRAILER", sigv4.HashPayload([]byte(trailer+":"+value+"\n"))))
	}
	b.WriteString("\r\n")
	r.Body, r.ContentLength = io.NopCloser(&b), int64(b.Len())
}
