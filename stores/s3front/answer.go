package s3front

import (
	"net/http"
	"strings"
)

// answerWriter spells the names of an object's metadata in lower case, as S3 does: boto3 gives them to its caller as they are
// spelt, and Go's server would write X-Amz-Meta-Name.
type answerWriter struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *answerWriter) WriteHeader(status int) {
	header := w.Header()
	for name, values := range header {
		if strings.HasPrefix(name, metaPrefix) {
			delete(header, name)
			header[strings.ToLower(name)] = values
		}
	}
	// versitygw (v1.8.0) sets them twice.
	for _, name := range []string{"X-Amz-Request-Id", "X-Amz-Id-2"} {
		if values := header[name]; len(values) > 1 {
			header[name] = values[:1]
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find what is below.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
