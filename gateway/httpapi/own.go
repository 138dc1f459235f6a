package httpapi

import (
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/auth"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
)

const (
	// HealthPath says on the public listeners that the gateway lives. A route cannot take it.
	HealthPath = "/health"
	// maxLoginBytes bounds the body of a login, which anyone may send.
	maxLoginBytes = 64 << 10
	// authorizedHeader is spelt so that it can only be set past http.Header's methods. It says that the API key
	// was right (design.md 7).
	authorizedHeader = "PADMA_USER_AUTHORIZED"
)

// own says whether the gateway answers that itself. Other methods of these paths are no route, as in API Gateway.
func (f *front) own(method, path string) bool {
	switch path {
	case HealthPath:
		return method == http.MethodGet || method == http.MethodHead
	case ContainerMetricsPath:
		return method == http.MethodGet
	case f.login:
		return method == http.MethodPost
	}
	return false
}

// newSystem serves the gateway's own public endpoints.
func newSystem(o Options) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		// The front answers errors, in the form that routing.yml wants them.
		if w, ok := c.Response().Writer.(*recorder); ok {
			w.err = err
		}
	}
	health := func(c echo.Context) error {
		return c.JSONBlob(http.StatusOK, []byte(`{"status":"ok"}`))
	}
	e.GET(HealthPath, health)
	e.HEAD(HealthPath, health)
	e.GET(ContainerMetricsPath, func(c echo.Context) error {
		if _, err := o.Auth.Authenticate(gateway.AuthJWT, c.Request().Header); err != nil {
			return err
		}
		return containerMetrics(c, o)
	})
	e.POST(o.LoginPath, func(c echo.Context) error { return login(c, o) })
	return e
}

// login answers as the table of design.md 7 has it. A malformed body is 400 whatever the API key, which then only
// decides on the header.
func login(c echo.Context, o Options) error {
	r, w := c.Request(), c.Response()
	allowed := o.Auth.APIKeyValid(r.Header.Get("X-Api-Key"))
	if allowed {
		w.Header()[authorizedHeader] = []string{"true"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLoginBytes))
	if err != nil {
		return gateway.Errorf(gateway.CodeInvalid, "login: read body: %w", err)
	}
	credentials, err := auth.ParseCredentials(body)
	if err != nil {
		return err
	}
	if !allowed {
		return gateway.Errorf(gateway.CodeUnauthorized, "login: x-api-key is missing or wrong")
	}
	token, err := o.Auth.Login(credentials)
	if err != nil {
		return err
	}
	return c.JSONBlob(http.StatusOK, []byte(`{"AuthenticationResult":{"IdToken":"`+token+`"}}`))
}

// serveOwn lets Echo answer and takes note of what it answered.
func (f *front) serveOwn(x *exchange) {
	x.routing = f.plain // gateway_responses are about the API, the login answers as design.md 7 has it
	control := http.NewResponseController(x.w)
	_ = control.SetReadDeadline(x.start.Add(readBodyTimeout)) // not every ResponseWriter of a test can
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	w := &recorder{ResponseWriter: x.w}
	f.system.ServeHTTP(w, x.r)
	x.status, x.bytesOut, x.err = w.status, w.bytes, w.err
}

// serveLambda lets Lambda's API answer and takes note of what it answered.
func (f *front) serveLambda(x *exchange) {
	delete(x.w.Header(), "x-amz-apigw-id") // it is none of API Gateway's
	out := f.lambda.Serve(lambdaapi.Call{W: x.w, R: x.r, Path: x.path, RequestID: x.ids.request, TraceID: x.trace, Start: x.start})
	x.operation, x.function = out.Operation, out.Function
	x.status, x.bytesIn, x.bytesOut, x.initDuration, x.err = out.Status, out.BytesIn, out.BytesOut, out.InitDuration, out.Err
}

// recorder remembers what an answer was.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int
	err    error
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.ResponseWriter.Write(p)
	r.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
