// Package basicauth asks for one user and password (RFC 7617).
package basicauth

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
)

// Credentials are the one user whom a store lets in.
type Credentials struct{ User, Password string }

// Match says whether a request carries the credentials. It takes the same time whatever is wrong.
func (c Credentials) Match(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	// Digests have one length: how long the password is does not show either.
	users := subtle.ConstantTimeCompare(digest(user), digest(c.User))
	passwords := subtle.ConstantTimeCompare(digest(password), digest(c.Password))
	return ok && c.Password != "" && users&passwords == 1
}

// Refuse answers 401 without the body being read; realm is what a browser shows, hint what a person is to do.
func Refuse(w http.ResponseWriter, realm, hint string) {
	w.Header().Set("Www-Authenticate", `Basic realm="`+realm+`", charset="UTF-8"`)
	w.Header().Set("Connection", "close")
	http.Error(w, hint, http.StatusUnauthorized)
}

func digest(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}
