package auth

import "github.com/edge-serverless-box/esb/gateway"

// Rules are an Authenticator with what one configuration adds to it: named API keys and issuers. They never change, so that a
// request is judged by one configuration from its beginning to its end, and are safe for concurrent use.
type Rules struct {
	*Authenticator
	apiKeys []namedKey
	issuers issuerSet
}

// Compile returns the Rules of a configuration. Issuers that have not changed are those of the Rules in use. Its error says which
// CA file is wrong. Nothing is fetched before Use.
func (a *Authenticator) Compile(access gateway.Access) (*Rules, error) {
	r := &Rules{Authenticator: a, apiKeys: namedKeys(access.APIKeys)}
	if a.issuers == nil {
		return r, nil
	}
	var err error
	r.issuers, err = a.issuers.compile(access.Issuers)
	return r, err
}

// Use makes r the Rules in use: the keys of its new issuers are fetched from now on, and those of issuers that it does not have
// any more are not. Rules of before go on with the keys that they have.
func (a *Authenticator) Use(r *Rules) {
	if a.issuers != nil {
		a.issuers.use(r.issuers)
	}
}
