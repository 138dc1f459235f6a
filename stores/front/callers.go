package front

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/sigv4/sigv2"
)

// Callers are who may ask a store.
type Callers struct {
	// Secret finds the secret of a function's access key; KeyFile.Secret is the one of production.
	Secret sigv4.Keys
	// Rights finds what the function with an access key may do; functionaccess.File.Rights is the one of production. A key
	// that it does not know is nobody's.
	Rights func(accessKeyID string) (functionaccess.Rights, bool)
	// Store is the operator's key, which the store knows.
	Store sigv4.Credentials
	// WellKnown is a secret that everybody knows: whoever has it as Store's is not let in from the function network.
	WellKnown string
	// Network is that of the functions, Box the box's own address there.
	Network netip.Prefix
	Box     netip.Addr
}

// Keys finds the secrets of functions that there are, and of the operator. It is a sigv4.Keys.
func (c Callers) Keys(accessKeyID string) (string, bool) {
	if functionkeys.IsID(accessKeyID) {
		return c.Functions(accessKeyID)
	}
	return sigv4.OneKey(c.Store.AccessKeyID, c.Store.SecretAccessKey)(accessKeyID)
}

// Functions finds the secrets of functions that there are. It is a sigv4.Keys.
func (c Callers) Functions(accessKeyID string) (string, bool) {
	if _, ok := c.Rights(accessKeyID); !ok {
		return "", false
	}
	return c.Secret(accessKeyID)
}

// FromFunctions says whether a request comes from the function network, where the box itself has an address too.
func (c Callers) FromFunctions(r *http.Request) bool {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr := at.Addr().Unmap()
	return c.Network.IsValid() && c.Network.Contains(addr) && addr != c.Box
}

// Known says whether an access key is the operator's, and its secret one that everybody knows.
func (c Callers) Known(accessKeyID string) bool {
	return c.WellKnown != "" && accessKeyID == c.Store.AccessKeyID && c.Store.SecretAccessKey == c.WellKnown
}

// AccessKeyID returns whose signature a request says it has, without checking anything; empty for none.
func AccessKeyID(r *http.Request) string {
	var credential string
	_, rest, inHeader := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	switch {
	case inHeader:
		credential = rest
	case strings.Contains(r.URL.RawQuery, "X-Amz-Credential="):
		// ParseQuery gives what it could read.
		query, _ := url.ParseQuery(r.URL.RawQuery)
		credential = query.Get("X-Amz-Credential")
	default:
		return sigv2.AccessKeyID(r)
	}
	id, _, _ := strings.Cut(credential, "/")
	return id
}

// Caller is for whom bytes are held: the address that a request comes from.
func Caller(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return at.Addr().Unmap().String()
}

// Denied says why a function may not do something, in AWS's words. hint is what functions.yml would have to say, empty
// where nothing that it says would help.
func Denied(rights functionaccess.Rights, action, resource, why string) string {
	account := rights.Account
	return "User: arn:aws:sts::" + account + ":assumed-role/" + rights.Name + "/" + rights.Name + " is not authorized to perform: " + action +
		" on resource: " + resource + " because " + why
}
