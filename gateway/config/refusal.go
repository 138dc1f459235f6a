package config

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Refusal is what the watcher has read last and not taken.
type Refusal struct {
	// At is when.
	At time.Time
	// Problems are the lines that say why.
	Problems []string
}

// Refused is the last refusal, nil when what the files say is what holds.
func (w *Watcher) Refused() *Refusal { return w.refused.Load() }

// Notes say for the operator that the files are not what holds, and why.
func (w *Watcher) Notes() []string {
	r := w.Refused()
	if r == nil {
		return nil
	}
	return append([]string{"the files of " + r.At.UTC().Format(time.RFC3339) + " were refused, and the configuration of before holds:"}, r.Problems...)
}

// paths are those of the files that there are.
func (w *Watcher) paths() []string {
	all := []string{w.functionsPath, w.routingPath}
	if w.opts.ResourcesPath != "" {
		all = append(all, w.opts.ResourcesPath)
	}
	return all
}

var refusedDesc = prometheus.NewDesc("esb_config_refused", "1 when the file was changed and refused, so that the configuration of before holds; file is \"other\" when none is named.",
	[]string{"file"}, nil)

// Describe implements prometheus.Collector.
func (w *Watcher) Describe(ch chan<- *prometheus.Desc) { ch <- refusedDesc }

// Collect implements prometheus.Collector.
func (w *Watcher) Collect(ch chan<- prometheus.Metric) {
	refused, other := map[string]bool{}, false
	if r := w.Refused(); r != nil {
		other = true
		for _, problem := range r.Problems {
			for _, path := range w.paths() {
				if strings.HasPrefix(problem, path+":") || strings.Contains(problem, " "+path+":") {
					refused[path], other = true, false
				}
			}
		}
	}
	gauge := func(file string, is bool) {
		value := 0.0
		if is {
			value = 1
		}
		ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.GaugeValue, value, file)
	}
	for _, path := range w.paths() {
		gauge(filepath.Base(path), refused[path])
	}
	gauge("other", other)
}
