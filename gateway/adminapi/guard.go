package adminapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/edge-serverless-box/esb/guard/origin"
)

// guard lets the operator's programs in: those who send the token, and nobody through a browser. Health checks need no
// token: /healthz and /readyz say "ok" to everybody, and to strangers no more than that.
func guard(next http.Handler, o Options) http.Handler {
	asked := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !operator(r, o.Token) && r.URL.Path != "/healthz" && r.URL.Path != "/readyz" {
			w.Header().Set("Www-Authenticate", "Bearer")
			w.Header().Set("Connection", "close")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"message":"Unauthorized"}`)
			return
		}
		next.ServeHTTP(w, r)
	})
	var names []string
	if host, _, err := net.SplitHostPort(o.Addr); err == nil && host != "" {
		names = append(names, strings.ToLower(host))
	}
	return origin.Guard(asked, names...)
}

// operator says whether a request has the admin token: "Authorization: Bearer <token>". Digests take the same time to
// compare whatever was sent.
func operator(r *http.Request, token string) bool {
	headers := r.Header.Values("Authorization")
	if len(headers) != 1 || token == "" {
		return false
	}
	scheme, given, ok := strings.Cut(headers[0], " ")
	want, have := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(given))
	return ok && strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(want[:], have[:]) == 1
}
