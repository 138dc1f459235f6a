package schedule

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	ticks = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_schedule_ticks_total",
		Help: "Ticks of schedules by outcome: accepted by the queue, missed (accepted too, later than due because the box was off), failed (tried again), dropped.",
	}, []string{"schedule", "function", "outcome"})
	delay = promauto.NewHistogram(prometheus.HistogramOpts{
		Name:    "esb_schedule_delay_seconds",
		Help:    "Time from when a schedule was due until the queue had accepted its event.",
		Buckets: []float64{.01, .05, .1, .5, 1, 5, 15, 60, 600, 3600, 86400},
	})
)
