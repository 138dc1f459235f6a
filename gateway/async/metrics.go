package async

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return promauto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"function"}, labels...))
}

var (
	accepted     = counter("esb_async_accepted_total", "Events that were stored.")
	refused      = counter("esb_async_refused_total", "Events that were not taken, by the code of the error.", "code")
	started      = counter("esb_async_started_total", "Runs of a function with an event that began.")
	succeeded    = counter("esb_async_succeeded_total", "Events that a function has handled.")
	failed       = counter("esb_async_failed_total", "Events that were given up, by AWS's condition.", "condition")
	retried      = counter("esb_async_retried_total", "Events that wait for another try because the function failed.")
	throttled    = counter("esb_async_throttled_total", "Runs that did not happen because of a throttle or the box, and are tried again.")
	deadLettered = counter("esb_async_dead_lettered_total", "Events and records that were put into the dead-letter queue.")
	delivered    = counter("esb_async_delivered_total", "Records that a destination has taken, by kind: function, s3 or http.", "kind")
	undelivered  = counter("esb_async_delivery_failures_total", "Tries to deliver a record that failed, by kind.", "kind")
	storeErrors  = promauto.NewCounter(prometheus.CounterOpts{Name: "esb_async_store_errors_total", Help: "Exchanges with JetStream that failed."})
	enqueueTime  = promauto.NewHistogram(prometheus.HistogramOpts{
		Name: "esb_async_enqueue_seconds", Help: "Time to make an event durable.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})

	backlogDesc  = prometheus.NewDesc("esb_async_backlog", "Events of a function that wait for a run.", []string{"function"}, nil)
	inFlightDesc = prometheus.NewDesc("esb_async_in_flight", "Events of a function that it is running with.", []string{"function"}, nil)
	outcomesDesc = prometheus.NewDesc("esb_async_outcomes", "Ended events whose dead letter or record is still to be put away.", []string{"function"}, nil)
	ageDesc      = prometheus.NewDesc("esb_async_age_seconds", "Age of a function's oldest event that has not ended.", []string{"function"}, nil)
	deadDesc     = prometheus.NewDesc("esb_async_dead_letters", "Dead letters of a function.", []string{"function"}, nil)
	bytesDesc    = prometheus.NewDesc("esb_async_bytes", "What the events in the queue count towards its limit.", nil, nil)
)

// Describe implements prometheus.Collector.
func (q *Queue) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{backlogDesc, inFlightDesc, outcomesDesc, ageDesc, deadDesc, bytesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (q *Queue) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(bytesDesc, float64(q.bytes.Load()))
	now := time.Now()
	for _, s := range q.backlog() {
		gauge(backlogDesc, float64(s.Backlog), s.Function)
		gauge(inFlightDesc, float64(s.InFlight), s.Function)
		gauge(outcomesDesc, float64(s.Outcomes), s.Function)
		age := 0.0
		if s.Oldest != nil {
			age = max(0, now.Sub(*s.Oldest).Seconds())
		}
		gauge(ageDesc, age, s.Function)
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	counts, err := q.deadCounts(ctx)
	if err != nil {
		return // readiness tells
	}
	for function, n := range counts {
		gauge(deadDesc, float64(n), function)
	}
}

// scrapeTimeout bounds what a scrape asks JetStream.
const scrapeTimeout = 2 * time.Second
