package httpapi

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// statusClientLeft stands in logs and metrics for a client that did not wait for its answer (as nginx has it).
const statusClientLeft = 499

// defaultRetryAfter is told with a 503 when nothing better is known.
const defaultRetryAfter = time.Second

// reply is an answer that the gateway makes itself.
type reply struct {
	status int
	// kind is the header x-amzn-ErrorType.
	kind string
	body string
}

// replyTo is the one place that turns an error code into an answer (design.md 9; the texts and error types are
// aws-behaviour.md 3, where design.md 9 does not say otherwise).
func replyTo(code gateway.Code) reply {
	switch code {
	case gateway.CodeUnauthorized, gateway.CodeTokenExpired:
		return reply{http.StatusUnauthorized, "UnauthorizedException", `{"message":"Unauthorized"}`}
	case gateway.CodeForbidden:
		return reply{http.StatusForbidden, "ForbiddenException", `{"message":"Forbidden"}`}
	case gateway.CodeAccessDenied:
		return reply{http.StatusForbidden, "AccessDeniedException", `{"Message":"User is not authorized to access this resource"}`}
	case gateway.CodeExplicitDeny:
		return reply{http.StatusForbidden, "AccessDeniedException", `{"Message":"User is not authorized to access this resource with an explicit deny"}`}
	case gateway.CodeAuthorizerFailure:
		return reply{http.StatusInternalServerError, "AuthorizerFailureException", `{"message":null}`}
	case gateway.CodeAuthorizerConfiguration:
		return reply{http.StatusInternalServerError, "AuthorizerConfigurationException", `{"message":null}`}
	case gateway.CodeNoRoute:
		return reply{http.StatusNotFound, "NotFoundException", `{"message":"Not Found"}`}
	case gateway.CodeFunction, gateway.CodeTransport:
		return reply{http.StatusBadGateway, "InternalServerErrorException", `{"message": "Internal server error"}`}
	case gateway.CodeIntegrationTimeout:
		return reply{http.StatusGatewayTimeout, "InternalServerErrorException", `{"message": "Endpoint request timed out"}`}
	case gateway.CodeThrottled, gateway.CodeRouteThrottled:
		return reply{http.StatusTooManyRequests, "TooManyRequestsException", `{"message":"Too Many Requests"}`}
	case gateway.CodeUnavailable:
		return reply{http.StatusServiceUnavailable, "ServiceUnavailableException", `{"message":"Service Unavailable"}`}
	case gateway.CodeTooLarge:
		return reply{http.StatusRequestEntityTooLarge, "BadRequestException", `{"message": "Request Too Long"}`}
	case gateway.CodeBodyTooLarge:
		return reply{http.StatusRequestEntityTooLarge, "RequestTooLargeException", `HTTP content length exceeded 10485760 bytes.`}
	case gateway.CodeHeaderTooLarge:
		return reply{http.StatusRequestHeaderFieldsTooLarge, "BadRequestException", `{"message":"Request Header Fields Too Large"}`}
	case gateway.CodeInvalid:
		return reply{http.StatusBadRequest, "BadRequestException", `{"message": "Invalid request body"}`}
	case gateway.CodeCanceled:
		return reply{status: statusClientLeft}
	default:
		return reply{http.StatusInternalServerError, "InternalServerErrorException", `{"message": "Internal server error"}`}
	}
}

// writeError answers err and returns the status and the size of the body.
func writeError(w http.ResponseWriter, err error) (status, size int) {
	code := gateway.ErrorCode(err)
	r := replyTo(code)
	h := w.Header()
	var e *gateway.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		h.Set("Retry-After", seconds(e.RetryAfter))
	} else if code == gateway.CodeUnavailable {
		h.Set("Retry-After", seconds(defaultRetryAfter))
	}
	if e != nil && e.Challenge != "" {
		h["Www-Authenticate"] = []string{e.Challenge}
	}
	if r.kind != "" {
		h["x-amzn-ErrorType"] = []string{r.kind}
	}
	if code == gateway.CodeBodyTooLarge {
		h.Set("Content-Type", "text/plain")
	} else {
		h.Set("Content-Type", "application/json")
	}
	if code == gateway.CodeCanceled {
		h.Set("Connection", "close")
	}
	h.Set("Content-Length", strconv.Itoa(len(r.body)))
	w.WriteHeader(r.status)
	_, _ = w.Write([]byte(r.body)) // a client that has gone needs no answer
	return r.status, len(r.body)
}

// seconds rounds up: a client that comes back too early is refused again.
func seconds(d time.Duration) string {
	return strconv.Itoa(int(math.Ceil(d.Seconds())))
}
