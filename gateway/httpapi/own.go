package httpapi

import (
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/auth"
	"github.com/edge-serverless-box/esb/gateway/awsapi"
	"github.com/edge-serverless-box/esb/gateway/containermetrics"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
)

const (
	// HealthPath says on the public listeners that the gateway lives. A route cannot take it.
	HealthPath = "/health"
	// maxLoginBytes bounds the body of a login, which anyone may send.
	maxLoginBytes = 64 << 10
	// loginBodyTimeout bounds how long it may take to arrive: it is small.
	loginBodyTimeout = 10 * time.Second
	// authorizedHeader is spelt so that it can only be set past http.Header's methods. It says that the API key
	// was right.
	authorizedHeader = "PADMA_USER_AUTHORIZED"
)

// own says whether the gateway answers that itself. Other methods of these paths are no route, as in API Gateway.
func (f *front) own(method, path string) bool {
	switch path {
	case HealthPath:
		return method == http.MethodGet || method == http.MethodHead
	case containermetrics.Path:
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
	e.GET(containermetrics.Path, func(c echo.Context) error {
		if _, err := o.Auth.Authenticate(gateway.AuthJWT, c.Request().Header); err != nil {
			return err
		}
		containers, err := o.Containers(c.Request().Context())
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, containermetrics.Of(containers))
	})
	e.POST(o.LoginPath, func(c echo.Context) error { return login(c, o) })
	return e
}

// login answers right credentials with a token. A malformed body is 400 whatever the API key, and nothing is told of the key
// then; who has guessed wrong too often is told when to come back, before anything of the body is read.
func login(c echo.Context, o Options) error {
	r, w := c.Request(), c.Response()
	from := claimant(sourceIP(r.RemoteAddr))
	if err := o.Auth.MayLogIn(from); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLoginBytes))
	if err != nil {
		return gateway.Errorf(gateway.CodeInvalid, "login: read body: %w", err)
	}
	credentials, err := auth.ParseCredentials(body)
	if err != nil {
		return err
	}
	token, known, err := o.Auth.Login(from, r.Header.Get("X-Api-Key"), credentials)
	if known {
		w.Header()[authorizedHeader] = []string{"true"}
	}
	if err != nil {
		return err
	}
	return c.JSONBlob(http.StatusOK, []byte(`{"AuthenticationResult":{"IdToken":"`+token+`"}}`))
}

// serveOwn lets Echo answer and takes note of what it answered.
func (f *front) serveOwn(x *exchange) {
	x.routing = f.plain // gateway_responses are about the API, the login answers in a form of its own
	if x.r.Body != nil && x.r.Body != http.NoBody {
		if err := x.claim.Grow(maxLoginBytes); err != nil {
			x.err = errBusy(err)
			return
		}
		// Lifted when the body has been read, as the one that it shortens.
		_ = http.NewResponseController(x.w).SetReadDeadline(x.start.Add(loginBodyTimeout))
	}
	w := &recorder{ResponseWriter: x.w}
	f.system.ServeHTTP(w, x.r)
	x.status, x.bytesOut, x.err = w.status, w.bytes, w.err
}

// serveLambda lets Lambda's API answer and takes note of what it answered.
func (f *front) serveLambda(x *exchange) {
	delete(x.w.Header(), "x-amz-apigw-id") // it is none of API Gateway's
	out := f.lambda.Serve(lambdaapi.Call{W: x.w, R: x.r, Path: x.path, RequestID: x.ids.request, TraceID: x.trace, Memory: &x.claim})
	x.operation, x.function = out.Operation, out.Function
	x.status, x.bytesIn, x.bytesOut, x.initDuration, x.err = out.Status, out.BytesIn, out.BytesOut, out.InitDuration, out.Err
}

// refuseService answers a client of a service of AWS that the gateway does not have.
func (x *exchange) refuseService(s awsapi.Service) {
	delete(x.w.Header(), "x-amz-apigw-id")
	refusal := s.NotHere()
	x.operation, x.status = "aws", refusal.Status
	x.err = gateway.Errorf(gateway.CodeNoRoute, "signed for the service %q of AWS, which is not here", s.Name)
	x.bytesOut = s.Write(x.w, x.r, x.ids.request, refusal)
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
