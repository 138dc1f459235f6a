package config

import (
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/response"
)

// Limits of stages (API Gateway quotas; important notes, stage variables).
const (
	maxStageVariables     = 100
	maxStageVariableName  = 64
	maxStageVariableValue = 512
)

var (
	// AWS: a stage name has letters, digits, hyphens and underscores, at most 128.
	stageName = regexp.MustCompile(`^(?:[A-Za-z0-9_-]{1,128}|\$default)$`)
	// AWS: names of stage variables have letters, digits and underscores, values A-Za-z0-9-._~:/?#&=,
	stageVariableName  = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	stageVariableValue = regexp.MustCompile(`^[A-Za-z0-9\-._~:/?#&=,]*$`)
)

// stageDefault is the stage of HTTP APIs that does not appear in paths.
const stageDefault = "$default"

// readAPI reads the keys of the top level that are about the API as a whole.
func (r *routing) readAPI(top *object) {
	if v, ok := top.get("stage"); ok {
		if s, ok := v.text("the name of a stage such as prod"); ok {
			if stageName.MatchString(s) {
				r.api.Stage = s
			} else {
				v.problemf("must be 1 to 128 letters, digits, dashes and underscores, or $default, got %q", s)
			}
		}
	}
	if v, ok := top.get("stage_in_url"); ok {
		r.api.StageInURL, _ = v.boolean()
		if r.api.StageInURL && (r.api.Stage == "" || r.api.Stage == stageDefault) {
			v.problemf("needs a stage with a name: write stage: prod, say")
		}
	}
	if v, ok := top.get("stage_variables"); ok {
		r.api.StageVariables = v.stageVariables()
	}
	if v, ok := top.get("binary_media_types"); ok {
		r.binaryMediaTypes = v.mediaTypes()
	}
	if v, ok := top.get("gateway_responses"); ok {
		r.api.Responses = v.responses(r.api.StageVariables)
	}
	replies, err := response.New(r.api.Responses)
	if err != nil {
		// Each template was read above, and would have been refused.
		top.problemf("gateway_responses: %v", err)
	}
	r.replies = replies
}

func (v value) stageVariables() []gateway.StageVariable {
	o, ok := v.object()
	if !ok {
		return nil
	}
	if len(o.names) > maxStageVariables {
		v.problemf("has %d variables, at most %d are allowed (AWS's limit)", len(o.names), maxStageVariables)
	}
	var variables []gateway.StageVariable
	for _, name := range o.names {
		entry, ok := o.get(name)
		switch {
		case !ok: // reported by object
			continue
		case !stageVariableName.MatchString(name):
			entry.problemf("is not the name of a stage variable: letters, digits and underscores")
			continue
		case len(name) > maxStageVariableName:
			entry.problemf("has a name of %d characters, at most %d are allowed (AWS's limit)", len(name), maxStageVariableName)
			continue
		}
		text, _, ok := entry.scalar("a text")
		switch {
		case !ok:
		case utf8.RuneCountInString(text) > maxStageVariableValue:
			entry.problemf("has %d characters, at most %d are allowed (AWS's limit)", utf8.RuneCountInString(text), maxStageVariableValue)
		case !stageVariableValue.MatchString(text):
			entry.problemf("may have letters, digits and -._~:/?#&=, only (AWS's rule), got %q", text)
		default:
			variables = append(variables, gateway.StageVariable{Name: name, Value: text})
		}
	}
	sort.Slice(variables, func(i, j int) bool { return variables[i].Name < variables[j].Name })
	return variables
}

// responses reads gateway_responses: the name of a set, or causes with what is otherwise, and the set in the key set.
func (v value) responses(variables []gateway.StageVariable) gateway.Responses {
	sets := []string{string(gateway.ResponsesESB), string(gateway.ResponsesAWSREST)}
	if v.node.Kind != yaml.MappingNode {
		s, _ := v.oneOf(sets...)
		return gateway.Responses{Set: gateway.ResponseSet(s)}
	}
	var r gateway.Responses
	o, ok := v.object()
	if !ok {
		return r
	}
	if set, ok := o.get("set"); ok {
		s, _ := set.oneOf(sets...)
		r.Set = gateway.ResponseSet(s)
	}
	r.Custom = make(map[string]gateway.Response)
	lines := make(map[response.Cause]int)
	for _, name := range o.names {
		if name == "set" {
			continue
		}
		entry := o.fields[name]
		cause, ok := response.ParseCause(name)
		if !ok {
			if guess := nearest(strings.ToUpper(name), response.Causes()); guess != "" {
				entry.problemf("is not a cause; did you mean %s?", guess)
			} else {
				entry.problemf("is not a cause; there are set (esb or aws-rest) and %s", strings.Join(response.Causes(), ", "))
			}
			continue
		}
		if line, twice := lines[cause]; twice {
			entry.problemf("is the same cause as the one on line %d", line)
			continue
		}
		lines[cause] = entry.line
		if entry.null() {
			continue // reported by object
		}
		if c, ok := entry.object(); ok {
			r.Custom[string(cause)] = c.response(variables)
		}
	}
	return r
}

// ownHeaders are those of the gateway's own answers that it must set itself.
var ownHeaders = []string{"connection", "content-length", "date", "transfer-encoding", "trailer", "upgrade", "x-amzn-requestid",
	"x-amz-apigw-id", "apigw-requestid", "x-amzn-trace-id"}

func (o *object) response(variables []gateway.StageVariable) gateway.Response {
	var r gateway.Response
	if v, ok := o.get("status"); ok {
		r.Status, _ = v.integer(http.StatusOK, 599, "")
	}
	if v, ok := o.get("body"); ok {
		if text, _, ok := v.scalar("a template such as '{\"message\":$context.error.messageString}'"); ok && v.template(text, variables) {
			r.Body = &text
		}
	}
	if v, ok := o.get("headers"); ok {
		if h, ok := v.object(); ok {
			for _, name := range h.names {
				value, ok := h.get(name)
				if !ok {
					continue // reported by object
				}
				text, _, ok := value.scalar("a text")
				switch {
				case !ok:
				case !headerName.MatchString(name):
					value.problemf("is not the name of a header")
				case slices.Contains(ownHeaders, strings.ToLower(name)):
					value.problemf("is a header that the gateway sets itself")
				case len(text) > 1 && text[0] == '\'' && text[len(text)-1] == '\'':
					value.problemf("has the quotes that API Gateway's parameter mapping needs: write %s without them", text[1:len(text)-1])
				case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
					value.problemf("has a control character")
				case value.template(text, variables):
					r.Header = append(r.Header, gateway.ResponseHeader{Name: name, Value: text})
				}
			}
		}
	}
	if len(o.names) == 0 {
		o.problemf("says nothing: give it status, body or headers")
	}
	o.close()
	return r
}

// template checks a template.
func (v value) template(text string, variables []gateway.StageVariable) bool {
	t, err := response.ParseTemplate(text)
	if err != nil {
		v.problemf("%v", err)
		return false
	}
	for _, name := range t.StageVariables {
		if !slices.ContainsFunc(variables, func(s gateway.StageVariable) bool { return s.Name == name }) {
			v.problemf("there is no stage variable %s: stage_variables has them", name)
			return false
		}
	}
	return true
}
