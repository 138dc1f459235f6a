package httpapi

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/guard/connlimit"
)

// guards are what holds clients back.
type guards struct {
	public, admin *connlimit.Limiter
	// floods counts connections that were ended for their frames.
	floods *atomic.Uint64
	memory *budget.Budget
}

// registerGuards shows what the guards hold and have refused.
func registerGuards(r prometheus.Registerer, g guards) {
	counter := func(name, help string, labels prometheus.Labels, value func() uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value()) }))
	}
	gauge := func(name, help string, labels prometheus.Labels, value func() int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value()) }))
	}
	for listener, limiter := range map[string]*connlimit.Limiter{"public": g.public, "admin": g.admin} {
		gauge("esb_connections_open", "Connections of clients.", prometheus.Labels{"listener": listener},
			func() int64 { return int64(limiter.Open()) })
		for _, reason := range connlimit.Reasons() {
			counter("esb_connections_refused_total",
				"Connections that were closed at once, by the bound that they are above: total, address, network; evicted is an old one that gave way.",
				prometheus.Labels{"listener": listener, "reason": reason.String()}, func() uint64 { return limiter.Refused(reason) })
		}
	}
	counter("esb_http2_floods_total", "HTTP/2 connections that were ended because their frames brought nothing.", nil, g.floods.Load)
	if g.memory == nil {
		return
	}
	gauge("esb_memory_budget_bytes", "Memory for bodies, events and answers together.", nil, g.memory.Limit)
	gauge("esb_memory_budget_used_bytes", "What bodies, events and answers hold of it.", nil, g.memory.Used)
	counter("esb_memory_budget_refused_total", "Requests for which there was no memory.", nil, g.memory.Refused)
}
