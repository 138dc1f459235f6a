// Package cors answers preflights and adds the CORS headers of a route, as API Gateway's HTTP APIs do: the route's rules
// count for everything that it answers, errors of the gateway too, and replace what the function says about CORS.
package cors

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
)

// prefix is what the names of the headers of an answer have in common, in lower case.
const prefix = "access-control-"

// Preflight says whether r asks what the real request, of the method that it returns, may do (Fetch standard,
// CORS-preflight request).
func Preflight(r *http.Request) (method string, ok bool) {
	if r.Method != http.MethodOptions || r.Header.Get("Origin") == "" {
		return "", false
	}
	method = r.Header.Get("Access-Control-Request-Method")
	return method, method != ""
}

// AddPreflight adds what c answers to a preflight from origin: nothing when the origin is not allowed.
func AddPreflight(h http.Header, c *gateway.CORS, origin string) {
	if !add(h, c, origin) {
		return
	}
	h.Set("Access-Control-Allow-Methods", strings.Join(c.AllowMethods, ","))
	if len(c.AllowHeaders) > 0 {
		headers := strings.Join(c.AllowHeaders, ",")
		if headers == "*" {
			headers = "*,Authorization" // which the wildcard does not stand for (Fetch standard)
		}
		h.Set("Access-Control-Allow-Headers", headers)
	}
	if c.MaxAge >= 0 {
		h.Set("Access-Control-Max-Age", strconv.Itoa(int(c.MaxAge.Seconds())))
	}
}

// add adds what goes into every answer, and says whether the origin is allowed.
func add(h http.Header, c *gateway.CORS, origin string) bool {
	all := slices.Contains(c.AllowOrigins, "*")
	if !all {
		// Also without an Origin: a cache must not give that answer to a page.
		vary(h, "Origin")
	}
	if origin == "" || !all && !slices.ContainsFunc(c.AllowOrigins, func(p string) bool { return matches(p, origin) }) {
		return false
	}
	if all {
		origin = "*"
	}
	h.Set("Access-Control-Allow-Origin", origin)
	if c.AllowCredentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if len(c.ExposeHeaders) > 0 {
		h.Set("Access-Control-Expose-Headers", strings.Join(c.ExposeHeaders, ","))
	}
	return true
}

// matches compares an origin with a pattern that may have one "*", which stands for at least one character of a host, and at
// the end of the pattern for a port too. Scheme and host of an origin are in lower case (Fetch standard, ASCII serialisation of
// an origin).
func matches(pattern, origin string) bool {
	pattern = strings.ToLower(pattern)
	before, behind, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == origin
	}
	rest, ok := strings.CutPrefix(origin, before)
	if !ok {
		return false
	}
	rest, ok = strings.CutSuffix(rest, behind)
	return ok && rest != "" && !strings.ContainsFunc(rest, func(r rune) bool {
		return !inHost(r) && (behind != "" || !strings.ContainsRune(":[]", r))
	})
}

// inHost says whether a host name may have a character. What else a text between a scheme and a host that is known could be,
// a user or a path for example, makes it another host's.
func inHost(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~", r)
}

func vary(h http.Header, name string) {
	for _, v := range h["Vary"] {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part == "*" || strings.EqualFold(part, name) {
				return
			}
		}
	}
	h["Vary"] = append(h["Vary"], name)
}

// Writer makes every answer that is written through it follow the rules of a route. It is the answer's header that it
// changes, at the last moment, so that it does not matter who answers: function, stream, or the gateway itself.
type Writer struct {
	http.ResponseWriter
	cors   *gateway.CORS
	origin string
	begun  bool
}

// NewWriter returns a Writer in front of w for a request from origin, empty for none.
func NewWriter(w http.ResponseWriter, c *gateway.CORS, origin string) *Writer {
	return &Writer{ResponseWriter: w, cors: c, origin: origin}
}

// WriteHeader implements http.ResponseWriter.
func (w *Writer) WriteHeader(status int) {
	if !w.begun && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.begun = true
		h := w.Header()
		for name := range h {
			// Names are spelt as the function spelt them.
			if len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
				delete(h, name)
			}
			if name != "Vary" && strings.EqualFold(name, "Vary") {
				h["Vary"] = append(h["Vary"], h[name]...)
				delete(h, name)
			}
		}
		add(h, w.cors, w.origin)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *Writer) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController: what was not sent yet is sent with this route's headers.
func (w *Writer) FlushError() error {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
