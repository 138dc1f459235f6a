package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/schedule"
)

// Limits of schedules.
const (
	maxSchedules = 100
	// maxInput is EventBridge Scheduler's limit of a target's input (Scheduler user guide, quotas: 256 KB).
	maxInput = 256 << 10
	// maxInputDepth bounds the nesting of an input, and with it aliases that contain themselves.
	maxInputDepth = 100
)

// ruleName is EventBridge's grammar of a rule's name.
var ruleName = regexp.MustCompile(`^[.\-_A-Za-z0-9]{1,64}$`)

const expressionHint = "rate(5 minutes), or cron(0 18 ? * MON-FRI *)"

// schedules reads the keys schedule and schedules of one function.
func (o *object) schedules(function string) []gateway.Schedule {
	if v, ok := o.get("schedule"); ok {
		if o.has("schedules") {
			v.problemf("and schedules are both there: put this one into the list of schedules")
		}
		s := gateway.Schedule{Name: function, Enabled: true}
		v.expression(&s)
		// Known, so that it is no second problem.
		o.known = append(o.known, "schedules")
		return []gateway.Schedule{s}
	}
	v, ok := o.get("schedules")
	if !ok {
		return nil
	}
	items, ok := v.list()
	if !ok {
		return nil
	}
	if len(items) == 0 || len(items) > maxSchedules {
		v.problemf("must have 1 to %d entries, has %d", maxSchedules, len(items))
		return nil
	}
	schedules := make([]gateway.Schedule, 0, len(items))
	for i, item := range items {
		s := gateway.Schedule{Name: fmt.Sprintf("%s-%d", function, i+1), Enabled: true}
		if item.node.Kind == yaml.ScalarNode {
			item.expression(&s)
		} else if so, ok := item.object(); ok {
			so.schedule(&s)
		}
		schedules = append(schedules, s)
	}
	return schedules
}

func (o *object) schedule(s *gateway.Schedule) {
	if v, ok := o.get("name"); ok {
		if s.Name, ok = v.text("a name"); ok && !ruleName.MatchString(s.Name) {
			v.problemf("must be 1 to 64 letters, digits, dots, dashes and underscores, got %q", s.Name)
		}
	}
	if v, ok := o.get("timezone"); ok {
		s.Timezone, _ = v.text("the name of a time zone such as Europe/Berlin")
	}
	if v, ok := o.get("enabled"); ok {
		if text, tag, ok := v.scalar("true or false"); ok {
			if tag != "!!bool" {
				v.problemf("must be true or false, got %q", text)
			}
			s.Enabled = strings.EqualFold(text, "true")
		}
	}
	if v, ok := o.get("input"); ok {
		s.Input = v.json()
	}
	if v, ok := o.need("expression", expressionHint); ok {
		v.expression(s)
	}
	o.close()
}

func (v value) expression(s *gateway.Schedule) {
	text, ok := v.text(expressionHint)
	if !ok {
		return
	}
	s.Expression = text
	if _, err := schedule.Parse(text, s.Timezone); err != nil {
		v.problemf("%v", err)
	}
}

// json returns v as JSON with variables replaced and the order of keys kept, or reports why it cannot be.
func (v value) json() []byte {
	var b bytes.Buffer
	ok := v.appendJSON(&b, 0)
	if b.Len() > maxInput {
		v.problemf("must be at most %d KB as JSON", maxInput>>10)
	}
	if !ok || b.Len() > maxInput {
		return nil
	}
	return b.Bytes()
}

func (v value) appendJSON(b *bytes.Buffer, depth int) bool {
	if depth > maxInputDepth {
		v.problemf("is nested deeper than %d levels", maxInputDepth)
		return false
	}
	if b.Len() > maxInput {
		return false // reported by json
	}
	switch v.node.Kind {
	case yaml.MappingNode:
		// Not by object, which takes a key without a value for a mistake; here it is null.
		seen := make(map[string]bool)
		b.WriteByte('{')
		for i := 0; i+1 < len(v.node.Content); i += 2 {
			k, n := v.node.Content[i], v.node.Content[i+1]
			if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" || seen[k.Value] {
				v.doc.problemf(k.Line, join(v.key, k.Value), "must be a plain key that is given once")
				return false
			}
			seen[k.Value] = true
			if i > 0 {
				b.WriteByte(',')
			}
			appendText(b, k.Value)
			b.WriteByte(':')
			item := value{doc: v.doc, key: join(v.key, k.Value), line: n.Line, node: n}
			if n.Kind == yaml.AliasNode {
				item.node = n.Alias
			}
			if !item.appendJSON(b, depth+1) {
				return false
			}
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		items, _ := v.list()
		b.WriteByte('[')
		for i, item := range items {
			if i > 0 {
				b.WriteByte(',')
			}
			if !item.appendJSON(b, depth+1) {
				return false
			}
		}
		b.WriteByte(']')
	default:
		return v.appendScalar(b)
	}
	return true
}

func (v value) appendScalar(b *bytes.Buffer) bool {
	text, tag, ok := v.scalar("a value that JSON has")
	if !ok {
		return false
	}
	typed := yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
	switch tag {
	case "!!null":
		b.WriteString("null")
		return true
	case "!!bool", "!!int", "!!float":
		var decoded any
		if err := typed.Decode(&decoded); err == nil {
			if f, ok := decoded.(float64); !ok || !math.IsNaN(f) && !math.IsInf(f, 0) {
				data, err := json.Marshal(decoded)
				if err == nil {
					b.Write(data)
					return true
				}
			}
		}
		v.problemf("must be a value that JSON has, got %q", text)
		return false
	case "!!str", "!!timestamp":
		appendText(b, text)
		return true
	}
	v.problemf("must be a value that JSON has, not one of type %s", tag)
	return false
}

// appendText writes a JSON string.
func appendText(b *bytes.Buffer, text string) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text)    // a string always encodes
	b.Truncate(b.Len() - 1) // the encoder's newline
}

// claimSchedules reports schedules whose name another one has already.
func (s *functionSet) claimSchedules(o *object, f *gateway.Function) {
	for i, schedule := range f.Schedules {
		v := o.fields["schedule"]
		if !o.has("schedule") {
			items, _ := o.fields["schedules"].list()
			v = items[i]
		}
		if first, taken := s.schedules[schedule.Name]; taken {
			v.problemf("has the name %s, as the schedule at %s has: give it another one with the key name", schedule.Name, first)
			continue
		}
		s.schedules[schedule.Name] = fmt.Sprintf("%s:%d", v.doc.path, v.line)
	}
}
