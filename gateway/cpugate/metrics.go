package cpugate

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	limits = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "esb_cpu_turns_limit", Help: "How many invocations may run at the same time because functions want more CPU than there is; 0 while there is no bound.",
	})
	waiting = promauto.NewGauge(prometheus.GaugeOpts{Name: "esb_cpu_turns_waiting", Help: "Invocations that have a worker and wait for their turn on the CPU."})
	held    = promauto.NewCounter(prometheus.CounterOpts{Name: "esb_cpu_turns_waited_total", Help: "Invocations that have waited for their turn on the CPU."})
)
