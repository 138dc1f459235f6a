package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// async reads how a function's asynchronous invocations are tried, over a.
func (v value) async(a gateway.Async) gateway.Async {
	o, ok := v.object()
	if !ok {
		return a
	}
	if v, ok := o.get("retries"); ok {
		if n, ok := v.integer(0, gateway.MaxAsyncRetries, ""); ok {
			a.Retries = n
		}
	}
	if v, ok := o.get("max_age"); ok {
		if n, ok := v.integer(int(gateway.MinAsyncAge/time.Second), int(gateway.MaxAsyncAge/time.Second), "seconds"); ok {
			a.MaxAge = time.Duration(n) * time.Second
		}
	}
	if v, ok := o.get("concurrency"); ok {
		if n, ok := v.integer(1, maxCapacity, ""); ok {
			a.Concurrency = n
		}
	}
	if v, ok := o.get("on_success"); ok {
		a.OnSuccess = v.destination(a.OnSuccess)
	}
	if v, ok := o.get("on_failure"); ok {
		a.OnFailure = v.destination(a.OnFailure)
	}
	if v, ok := o.get("dead_letter"); ok {
		if s, ok := v.oneOf("true", "false"); ok {
			a.DeadLetter = s == "true"
		}
	}
	o.close()
	return a
}

// destination reads where records go; before stays when it is wrong.
func (v value) destination(before *gateway.Destination) *gateway.Destination {
	text, ok := v.text("the name of a function, s3://bucket/prefix, or an http or https URL")
	if !ok {
		return before
	}
	d, err := gateway.ParseDestination(text)
	if err != nil {
		v.problemf("%v", err)
		return before
	}
	if d.Function != "" {
		v.doc.mentions = append(v.doc.mentions, mention{value: v, name: d.Function})
	}
	return &d
}

// send is a function's name as the destination of another one's records.
type send struct {
	doc      *document
	line     int
	key, on  string
	from, to string
}

// checkCircles reports the circles of destinations that d has a part in, each once, where it begins. An event would go
// round for ever.
func (s *functionSet) checkCircles(d *document) {
	from := make(map[string][]send)
	for _, doc := range s.docs {
		for _, e := range doc.sends {
			from[e.from] = append(from[e.from], e)
		}
	}
	for _, e := range d.sends {
		circle := shortest(from, e)
		if circle == nil || s.circles[e] {
			continue
		}
		var way strings.Builder
		way.WriteString(e.from)
		for _, step := range circle {
			s.circles[step] = true
			fmt.Fprintf(&way, " -> %s (%s, %s:%d)", step.to, step.on, step.doc.path, step.line)
		}
		d.problemf(e.line, e.key, "is part of a circle of destinations, in which an event would go on for ever: %s", way.String())
	}
}

// shortest is the shortest way that begins with a step and leads back to where that came from, nil when there is none.
func shortest(from map[string][]send, first send) []send {
	ways, seen := [][]send{{first}}, map[string]bool{first.to: true}
	for len(ways) > 0 {
		way := ways[0]
		ways = ways[1:]
		for _, next := range from[way[len(way)-1].to] {
			longer := append(slices.Clone(way), next)
			if next.to == first.from {
				return longer
			}
			if !seen[next.to] {
				seen[next.to] = true
				ways = append(ways, longer)
			}
		}
	}
	return nil
}

// checkAsync checks the rules between the keys of async.
func (o *object) checkAsync(f *gateway.Function) {
	line, at := o.line, map[string]int{}
	if v, ok := o.fields["async"]; ok {
		line = v.line
		for _, name := range []string{"on_success", "on_failure"} {
			if own, ok := fieldOf(v, name); ok {
				at[name] = own
			}
		}
	}
	key := join(o.key, "async")
	for _, d := range []struct {
		name string
		to   *gateway.Destination
	}{{"on_success", f.Async.OnSuccess}, {"on_failure", f.Async.OnFailure}} {
		here := line
		if own, ok := at[d.name]; ok {
			here = own
		}
		switch {
		case d.to == nil || d.to.Function == "":
		case d.to.Function == f.Name:
			o.doc.problemf(here, join(key, d.name), "is the function itself, which would go on for ever")
		default:
			o.doc.sends = append(o.doc.sends, send{doc: o.doc, line: here, key: join(key, d.name), on: d.name, from: f.Name, to: d.to.Function})
		}
	}
	if !f.Async.DeadLetter && f.Async.OnFailure == nil {
		o.doc.problemf(line, join(key, "dead_letter"), "must not be false without on_failure: failed events would be lost")
	}
}
