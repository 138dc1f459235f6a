package provision

import "github.com/prometheus/client_golang/prometheus"

var resourcesDesc = prometheus.NewDesc("esb_resources",
	"Tables and buckets of resources.yml by status; those that differ are in the log and in /readyz.", []string{"store", "status"}, nil)

// Describe implements prometheus.Collector.
func (p *Provisioner) Describe(ch chan<- *prometheus.Desc) { ch <- resourcesDesc }

// Collect implements prometheus.Collector.
func (p *Provisioner) Collect(ch chan<- prometheus.Metric) {
	for _, k := range []*keeper{p.s3, p.dynamodb} {
		count := make(map[Status]int)
		for _, s := range k.states() {
			count[s.Status]++
		}
		for _, status := range []Status{Pending, Made, Differs} {
			ch <- prometheus.MustNewConstMetric(resourcesDesc, prometheus.GaugeValue, float64(count[status]), k.name, string(status))
		}
	}
}
