package httpapi

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts requests. The label route is the template, the operation of a request to Lambda's API, empty where none matched, so that a client cannot make
// new series.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	// routes keeps a routeMetrics for each route, so that a request costs no look-up of labels.
	routes sync.Map
}

type routeMetrics struct {
	duration prometheus.Observer
	// byStatus is indexed by status-100.
	byStatus [500]atomic.Pointer[prometheus.Counter]
}

func newMetrics(r prometheus.Registerer, inFlight func() int) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "esb_requests_total",
			Help: "Requests answered, by route and status; 499 is a client that left.",
		}, []string{"route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "esb_request_duration_seconds",
			Help:    "Time from a request's headers to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
	}
	r.MustRegister(m.requests, m.duration, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "esb_requests_in_flight",
		Help: "Requests that are being answered.",
	}, func() float64 { return float64(inFlight()) }))
	return m
}

func (m *metrics) observe(x *exchange, duration time.Duration) {
	name := x.operation
	if x.route != nil {
		name = x.route.Path
	}
	v, ok := m.routes.Load(name)
	if !ok {
		v, _ = m.routes.LoadOrStore(name, &routeMetrics{duration: m.duration.WithLabelValues(name)})
	}
	r := v.(*routeMetrics)
	r.duration.Observe(duration.Seconds())
	i := x.status - 100
	if i < 0 || i >= len(r.byStatus) {
		return
	}
	c := r.byStatus[i].Load()
	if c == nil {
		counter := m.requests.WithLabelValues(name, strconv.Itoa(x.status))
		c = &counter
		r.byStatus[i].Store(c)
	}
	(*c).Inc()
}
