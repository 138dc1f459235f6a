package sigv4

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Resign signs a request that Verify or VerifyHead has found right again for other credentials, in the way in which it was
// signed: in its header with the date now, or, when it was presigned, in its query with the old date, so that it expires
// when it did. payload is as for Sign.
func Resign(r *http.Request, s Signature, c Credentials, payload string, now time.Time) {
	if !s.Presigned {
		Sign(r, c, s.Scope.Region, s.Scope.Service, payload, now)
		return
	}
	query, _ := url.ParseQuery(r.URL.RawQuery) // it was parsed by Verify
	query.Del(querySignature)
	query.Del(HeaderSecurityToken)
	if c.SessionToken != "" {
		query.Set(HeaderSecurityToken, c.SessionToken)
	}
	query.Set(queryCredential, c.AccessKeyID+"/"+s.Scope.String())
	text := canonical(r, s.Scope.Service, query, s.Headers, payload)
	query.Set(querySignature, sign(s.Scope.Key(c.SecretAccessKey), s.Scope, s.Date.Format(timeFormat), text))
	var b strings.Builder
	writeQuery(&b, query)
	r.URL.RawQuery = b.String()
}
