package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/cors"
	"github.com/edge-serverless-box/esb/gateway/event"
)

// Authorizers ask Lambda authorizers; authorizer.Authorizers is the one of production.
type Authorizers interface {
	// Authorize returns who calls, as the authorizer of r's route has it. ctx carries the route's timeout.
	Authorize(ctx context.Context, r *event.Request) (*gateway.Caller, error)
}

// Admission says at once whether a request can be served or may wait; pool.Manager is the one of production.
type Admission interface {
	// Admit refuses a request of fn that could not even wait for a worker, with CodeThrottled.
	Admit(fn *gateway.Function) error
}

// apiMethods are those of API Gateway.
var apiMethods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions}

// admit lets a matched request in, or says why not: first by rate, so that authorizers are held back too, then by how many wait
// already, which costs next to nothing, then by who calls.
func (f *front) admit(x *exchange, parameters map[string]string) (*gateway.Caller, error) {
	if t := x.route.Throttle; t != nil {
		if err := x.routing.Limits.Allow(t, x.start); err != nil {
			return nil, err
		}
	}
	if t := x.routing.Throttle; t != nil {
		if err := x.routing.Limits.Allow(t, x.start); err != nil {
			return nil, err
		}
	}
	if f.admission != nil {
		if err := f.admission.Admit(x.route.Function); err != nil {
			return nil, err
		}
	}
	if x.route.Auth != gateway.AuthFunction {
		return x.routing.Auth.Admit(x.r.Context(), x.route, x.r.Header)
	}
	if x.routing.Authorizers == nil {
		return nil, gateway.Errorf(gateway.CodeAuthorizerConfiguration, "there are no authorizers")
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(x.r.Context(), x.route.Timeout)
	defer cancel()
	caller, err := x.routing.Authorizers.Authorize(ctx, x.request(nil, parameters, nil))
	x.authorizing = time.Since(began)
	if err != nil {
		return nil, f.failure(ctx, x, err)
	}
	if caller.APIKey != "" {
		named := *caller
		named.APIKeyID = x.routing.Auth.APIKeyName(caller.APIKey)
		caller = &named
	}
	return caller, nil
}

// budget is what the authorizer has left of the route's timeout.
func (x *exchange) budget() time.Duration { return x.route.Timeout - x.authorizing }

// withCORS makes every answer of x follow c, nil for none.
func (x *exchange) withCORS(c *gateway.CORS) {
	if c != nil {
		x.w = cors.NewWriter(x.w, c, x.r.Header.Get("Origin"))
	}
}

// withDefaultCORS is withCORS with the rules of the whole API, for answers that no route gives.
func (x *exchange) withDefaultCORS() { x.withCORS(x.routing.CORS) }

// preflight answers a browser that asks whether a request may be made, without authentication, as HTTP APIs do. It leaves the
// answer to a route that lists OPTIONS itself, and to the routes when no rules are there. route is what matched, nil for none.
func (x *exchange) preflight(route *gateway.Route) bool {
	method, ok := cors.Preflight(x.r)
	if !ok || route != nil && slices.Contains(route.Methods, http.MethodOptions) {
		return false
	}
	if m := x.routing.Matcher; m != nil && slices.Contains(apiMethods, method) {
		// The stage was taken off the path when the request itself was matched.
		if match, ok := m.Match(method, x.path); ok {
			route = match.Route
		}
	}
	var rules *gateway.CORS
	if route != nil {
		rules = route.CORS
	} else {
		rules = x.routing.CORS
	}
	if rules == nil {
		return false
	}
	x.route = route
	cors.AddPreflight(x.w.Header(), rules, x.r.Header.Get("Origin"))
	x.status = http.StatusNoContent
	x.w.WriteHeader(x.status)
	return true
}
