// Package origin keeps web pages away from endpoints that are for an operator's programs: a page of anybody that a
// browser on this machine shows can send requests to loopback, and by DNS rebinding even read the answers.
package origin

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Guard lets a request through to next when its Host is an address, "localhost" or one of names (host names without
// port, in lower case), and when no page of another origin has sent it (Origin, Sec-Fetch-Site: Fetch standard and W3C
// Fetch Metadata). The others are answered 403 with a line that says why, without their bodies being read.
func Guard(next http.Handler, names ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reason := foreign(r, names); reason != "" {
			w.Header().Set("Connection", "close")
			http.Error(w, reason, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// foreign says why a request is refused, "" when it is not.
func foreign(r *http.Request, names []string) string {
	if !ours(r.Host, names) {
		return "This endpoint answers to an IP address or localhost, not to another host name."
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return "This endpoint is not for other web pages."
	}
	if value := r.Header.Get("Origin"); value != "" {
		// A browser that does not send Sec-Fetch-Site sends Origin with everything but plain GETs.
		if u, err := url.Parse(value); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return "This endpoint is not for other web pages."
		}
	}
	return ""
}

// ours is true for a Host that no DNS server can have made up.
func ours(host string, names []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if host == "localhost" {
		return true
	}
	for _, name := range names {
		if host == name {
			return true
		}
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}
