package httpapi

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/event"
	"github.com/edge-serverless-box/esb/gateway/response"
)

// writeError answers x.err and notes what was answered.
func (f *front) writeError(x *exchange) {
	httpAPI := x.route != nil && x.route.HTTPAPI()
	r := x.routing.Replies.Reply(x.err, httpAPI, f.values(x, httpAPI))
	h := x.w.Header()
	for _, field := range r.Header {
		setHeader(h, field)
	}
	h["Content-Length"] = []string{strconv.Itoa(len(r.Body))}
	x.status, x.bytesOut = r.Status, len(r.Body)
	x.w.WriteHeader(r.Status)
	_, _ = x.w.Write([]byte(r.Body)) // a client that has gone needs no answer
}

// setHeader sets a header in the spelling given, in place of one that differs in spelling.
func setHeader(h http.Header, field gateway.ResponseHeader) {
	for name := range h {
		if strings.EqualFold(name, field.Name) {
			delete(h, name)
		}
	}
	h[field.Name] = []string{field.Value}
	if field.Name != "Content-Type" && strings.EqualFold(field.Name, "Content-Type") {
		h["Content-Type"] = nil // keeps net/http from guessing a second one
	}
}

// values are what the templates of gateway_responses can name.
func (f *front) values(x *exchange, httpAPI bool) *response.Values {
	stage := event.Stage(x.routing.API, httpAPI)
	v := &response.Values{
		RequestID:         x.ids.request,
		ExtendedRequestID: x.ids.extended,
		Path:              event.StagePath(stage, x.sent),
		Method:            x.r.Method,
		Protocol:          event.Protocol,
		Host:              event.DomainName(x.r.Host),
		SourceIP:          x.sourceIP,
		UserAgent:         x.r.UserAgent(),
		Authorization:     x.r.Header.Get("Authorization"),
		Stage:             stage,
		AccountID:         f.account,
		APIID:             event.APIID,
		Time:              x.start,
		StageVariables:    x.routing.API.StageVariables,
	}
	if x.route != nil {
		v.ResourcePath = x.route.Path
	}
	return v
}
