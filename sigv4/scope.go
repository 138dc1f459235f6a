package sigv4

import (
	"net/http"
	"net/url"
	"strings"
)

// SignedFor returns for which service of AWS a request says that it is signed, by version 4 or 4A, in its header or its query;
// false when it does not say so. Nothing of the signature is checked.
func SignedFor(r *http.Request) (service string, ok bool) {
	if values := r.Header["Authorization"]; len(values) > 0 {
		// "AWS4-HMAC-SHA256 Credential=...", or AWS4-ECDSA-P256-SHA256.
		rest, found := strings.CutPrefix(values[0], "AWS4-")
		if !found {
			return "", false
		}
		_, rest, found = strings.Cut(rest, "Credential=")
		if !found {
			return "", false
		}
		if i := strings.IndexAny(rest, ", "); i >= 0 {
			rest = rest[:i]
		}
		return scopeService(rest)
	}
	if !strings.Contains(r.URL.RawQuery, queryCredential+"=") {
		return "", false
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || !strings.HasPrefix(query.Get(queryAlgorithm), "AWS4-") {
		return "", false
	}
	return scopeService(query.Get(queryCredential))
}

// scopeService takes the service out of "key/date/region/service/aws4_request"; version 4A has no region there.
func scopeService(credential string) (string, bool) {
	parts := strings.Split(credential, "/")
	n := len(parts)
	if n != 4 && n != 5 || parts[n-1] != terminal {
		return "", false
	}
	return parts[n-2], parts[n-2] != ""
}
