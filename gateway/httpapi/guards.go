package httpapi

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edge-serverless-box/esb/guard/budget"
)

// registerGuards shows what holds clients back: floods counts connections that were ended for their frames.
func registerGuards(r prometheus.Registerer, floods *atomic.Uint64, memory *budget.Budget) {
	counter := func(name, help string, value func() uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value()) }))
	}
	gauge := func(name, help string, value func() int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return float64(value()) }))
	}
	counter("esb_http2_floods_total", "HTTP/2 connections that were ended because their frames brought nothing.", floods.Load)
	if memory == nil {
		return
	}
	gauge("esb_memory_budget_bytes", "Memory for bodies, events and answers together.", memory.Limit)
	gauge("esb_memory_budget_used_bytes", "What bodies, events and answers hold of it.", memory.Used)
	counter("esb_memory_budget_refused_total", "Requests for which there was no memory.", memory.Refused)
}
