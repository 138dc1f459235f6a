package invoke

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	invocations = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_invocations_total",
		Help: "Invocations by function and outcome: ok, function_error, timeout, circuit_open, or the code of the error.",
	}, []string{"function", "outcome"})
	invocationDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "esb_invocation_duration_seconds",
		Help:    "Time of an invocation, waiting for a worker included.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"function"})
	coldStarts = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_cold_starts_total",
		Help: "Invocations that were the first of their worker.",
	}, []string{"function"})
	outlived = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_invocations_outlived_total",
		Help: "Invocations that ended after their caller had left, by function and how they ended; esb_invocations_total has them as what their caller saw.",
	}, []string{"function", "outcome"})
	streamedBytes = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_streamed_bytes_total",
		Help: "Bytes of results that were passed to a caller that takes them piece by piece.",
	}, []string{"function"})

	breakerDesc = prometheus.NewDesc("esb_circuit_breaker_state", "Circuit of a function: 0 closed, 1 half open, 2 open.", []string{"function"}, nil)
)

// counted are the metrics of a function, so that an invocation costs no look-up of labels.
type counted struct {
	duration prometheus.Observer
	// ok counts what is most usual; nil until there was one.
	ok atomic.Pointer[prometheus.Counter]
}

// count takes note of an invocation.
func (i *Invoker) count(function, outcome string, took time.Duration) {
	v, found := i.counts.Load(function)
	if !found {
		v, _ = i.counts.LoadOrStore(function, &counted{duration: invocationDuration.WithLabelValues(function)})
	}
	c := v.(*counted)
	c.duration.Observe(took.Seconds())
	ok := c.ok.Load()
	if outcome != outcomeOK || ok == nil {
		counter := invocations.WithLabelValues(function, outcome)
		if ok = &counter; outcome == outcomeOK {
			c.ok.Store(ok)
		}
	}
	(*ok).Inc()
}

// Describe implements prometheus.Collector.
func (i *Invoker) Describe(ch chan<- *prometheus.Desc) { ch <- breakerDesc }

// Collect implements prometheus.Collector: the state of every circuit that was ever asked.
func (i *Invoker) Collect(ch chan<- prometheus.Metric) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	for name, b := range i.breakers {
		ch <- prometheus.MustNewConstMetric(breakerDesc, prometheus.GaugeValue, float64(b.cb.State()), name)
	}
}
