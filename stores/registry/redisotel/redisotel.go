// Package redisotel stands in for github.com/redis/go-redis/extra/redisotel/v9, as ../redis does for its client.
package redisotel

// InstrumentMetrics does nothing: there is nothing to measure.
func InstrumentMetrics(any) error { return nil }
