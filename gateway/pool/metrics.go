package pool

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	acquireWait = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "esb_acquire_wait_seconds",
		Help:    "Time a request waited for a worker, cold starts included.",
		Buckets: []float64{.0001, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"function"})
	startDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "esb_start_duration_seconds",
		Help:    "Time the agent took to start a container, by outcome.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"function", "outcome"})
	destroyed = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_containers_destroyed_total",
		Help: "Containers whose destruction began.",
	}, []string{"function"})
	evicted = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_workers_evicted_total",
		Help: "Idle workers of a function that were ended because a start needed their memory, or functions had grown beyond what there is for them.",
	}, []string{"function"})
	shortageBytes = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "esb_function_memory_shortage_bytes",
		Help: "How much memory functions hold beyond what there is for them, as the agent said last; 0 when there is enough.",
	})
	pushedOut = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_waiting_pushed_out_total",
		Help: "Requests that waited for a worker and were refused for those of functions with fewer that wait.",
	}, []string{"function"})
	standstills = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_worker_standstills_total",
		Help: "Workers that were given up because they had not ended and gave no sign of life.",
	}, []string{"function"})
	freezes = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_worker_freezes_total",
		Help: "Idle workers that were frozen.",
	}, []string{"function"})
	thawDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "esb_worker_thaw_seconds",
		Help:    "Time a request waited until its frozen worker ran again.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1},
	}, []string{"function"})
	orphans = promauto.NewCounter(prometheus.CounterOpts{
		Name: "esb_orphans_destroyed_total",
		Help: "Containers that no pool knew and that the janitor destroyed.",
	})

	adopted = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_workers_adopted_total",
		Help: "Workers of an earlier gateway process that were taken over.",
	}, []string{"function"})

	frozenDesc   = prometheus.NewDesc("esb_pool_frozen", "Idle workers of a function that are frozen.", []string{"function"}, nil)
	workersDesc  = prometheus.NewDesc("esb_pool_workers", "Containers of a function by state.", []string{"function", "state"}, nil)
	outdatedDesc = prometheus.NewDesc("esb_pool_outdated", "Workers of a function that are of an older configuration and serve until one of the present is ready.", []string{"function"}, nil)
	waitingDesc  = prometheus.NewDesc("esb_pool_waiting", "Requests that wait for a worker of a function.", []string{"function"}, nil)
)

// Describe implements prometheus.Collector.
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	ch <- workersDesc
	ch <- waitingDesc
	ch <- frozenDesc
	ch <- outdatedDesc
}

// Collect implements prometheus.Collector: the state of every pool at the moment of the scrape.
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.Snapshot() {
		for _, v := range []struct {
			state string
			n     int
		}{{string(PhaseIdle), s.Idle}, {string(PhaseBusy), s.Busy}, {"starting", s.Starting}, {string(PhaseStandby), s.Standby}, {string(PhaseStopping), s.Stopping}} {
			ch <- prometheus.MustNewConstMetric(workersDesc, prometheus.GaugeValue, float64(v.n), s.Function, v.state)
		}
		ch <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(s.Waiting), s.Function)
		ch <- prometheus.MustNewConstMetric(frozenDesc, prometheus.GaugeValue, float64(s.Frozen), s.Function)
		ch <- prometheus.MustNewConstMetric(outdatedDesc, prometheus.GaugeValue, float64(s.Outdated), s.Function)
	}
}
