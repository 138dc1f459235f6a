package gateway

// API is what routing.yml says of the API as a whole, beside who may call it (Access). It is immutable: a reload makes a new
// one. The zero value is an API without settings.
type API struct {
	// Stage is the stage's name in events; empty means "prod" for REST APIs and "$default" for HTTP APIs.
	Stage string
	// StageInURL is true when paths of requests begin with the stage, as at AWS's own host names.
	StageInURL bool
	// StageVariables by name, in order (AWS: at most 100, names up to 64 and values up to 512 characters).
	StageVariables []StageVariable
	// Responses are the answers that the gateway gives itself.
	Responses Responses
}

// StageVariable is one stage variable.
type StageVariable struct {
	Name  string
	Value string
}

// ResponseSet names a set of the gateway's own answers.
type ResponseSet string

// Sets of the gateway's own answers.
const (
	// ResponsesESB is docs/system-specification.md 9, the default.
	ResponsesESB ResponseSet = "esb"
	// ResponsesAWSREST is that of API Gateway's REST APIs.
	ResponsesAWSREST ResponseSet = "aws-rest"
)

// Responses say how the gateway answers by itself: a set, and what is otherwise than in the set.
type Responses struct {
	// Set is ResponsesESB when empty.
	Set ResponseSet
	// Custom answers by cause (package response).
	Custom map[string]Response
}

// Response replaces parts of one answer of the gateway's own.
type Response struct {
	// Status is 0 to leave it as it is.
	Status int
	// Body is a template, nil to leave it as it is.
	Body *string
	// Header has names and templates of values, in order.
	Header []ResponseHeader
}

// ResponseHeader is one header of a Response.
type ResponseHeader struct {
	Name  string
	Value string
}

// DefaultRoute is the path of the route that takes what no other route does (AWS: the $default route of HTTP APIs).
const DefaultRoute = "$default"

// APIType is a kind of API that API Gateway has: they differ in events, in what they make of results, and in their errors.
type APIType string

// Types of APIs.
const (
	APITypeREST APIType = "rest"
	APITypeHTTP APIType = "http"
)

// HTTPAPI says whether the route behaves as one of an HTTP API; else it is one of a REST API. Payload 2.0 exists in HTTP APIs
// only.
func (r *Route) HTTPAPI() bool {
	return r.API == APITypeHTTP || r.Payload == PayloadV2
}
