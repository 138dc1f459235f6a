package config

import (
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

// checkAsync checks the rules between the keys of async.
func (o *object) checkAsync(f *gateway.Function) {
	line := o.line
	if v, ok := o.fields["async"]; ok {
		line = v.line
	}
	key := join(o.key, "async")
	for _, d := range []struct {
		name string
		to   *gateway.Destination
	}{{"on_success", f.Async.OnSuccess}, {"on_failure", f.Async.OnFailure}} {
		if d.to != nil && d.to.Function == f.Name {
			o.doc.problemf(line, join(key, d.name), "is the function itself, which would go on for ever")
		}
	}
	if !f.Async.DeadLetter && f.Async.OnFailure == nil {
		o.doc.problemf(line, join(key, "dead_letter"), "must not be false without on_failure: failed events would be lost")
	}
}
