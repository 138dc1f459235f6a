package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/tests/bench/measure"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

const (
	// warmRate is how many warm requests a second are sent on a schedule, coldRate how many to functions that are scaled to zero.
	warmRate, coldRate = 100, 8
	// lateLimit is what a request may be sent after it was due without being called late.
	lateLimit = 10 * time.Millisecond
)

// besideCold compares warm requests alone with those beside cold starts, both on a schedule: an open loop.
func (s *suite) besideCold(ctx context.Context) error {
	quiet, beside := measure.Times("quiet", measure.Milliseconds), measure.Times("beside cold starts", measure.Milliseconds)
	quiet.Quantile, beside.Quantile = 0.99, 0.99
	colds := measure.Values("cold starts", measure.PerSecond)
	generator := traffic.New()
	defer generator.Close()
	said := func(_ http.Header, body []byte) string {
		process, _ := instance(body) // without one it is a wrong answer
		return process
	}
	warmed := traffic.Stream{Name: "warm", Rate: warmRate, Said: said, Request: func(ctx context.Context, _ int) (*http.Request, error) {
		return s.box.request(ctx, "warm", body)
	}}
	// A function is asked again when it has been gone for a while.
	next := 0
	seen := map[string]bool{}
	cold := traffic.Stream{Name: "cold", Rate: coldRate, Said: said, Request: func(ctx context.Context, n int) (*http.Request, error) {
		return s.box.request(ctx, fmt.Sprintf("churn%d", (next+n)%churning), body)
	}}
	send := func(figure *measure.Figure, streams ...traffic.Stream) ([]traffic.Sample, error) {
		from := time.Now()
		ctx, cancel := context.WithTimeout(ctx, s.beside)
		defer cancel()
		var sending sync.WaitGroup
		for _, stream := range streams {
			sending.Go(func() { generator.Run(ctx, stream) })
		}
		sending.Wait()
		generator.Close()
		figure.Round()
		for _, sample := range generator.Samples("warm", from, time.Now()) {
			switch {
			case !sample.OK():
				figure.Fail(sample.Cause())
				continue
			case sample.Said == "":
				figure.Fail("a wrong answer")
				continue
			case sample.Late() > lateLimit:
				figure.Late()
			}
			figure.Took(sample.Latency())
		}
		return generator.Samples("cold", from, time.Now()), nil
	}
	churns := make([]string, churning)
	for i := range churns {
		churns[i] = fmt.Sprintf("churn%d", i)
	}
	for range s.rounds {
		if _, err := send(quiet, warmed); err != nil {
			return err
		}
		samples, err := send(beside, warmed, cold)
		if err != nil {
			return err
		}
		next += len(samples)
		started := 0
		for _, sample := range samples {
			switch {
			case !sample.OK():
				beside.Fail("cold: " + sample.Cause())
			case sample.Said == "":
				beside.Fail("cold: a wrong answer")
			case seen[sample.Said]:
				// It was asked before it was gone.
			default:
				seen[sample.Said] = true
				started++
			}
		}
		colds.Is(float64(started) / s.beside.Seconds())
		if err := s.box.await(ctx, none, churns...); err != nil {
			return err
		}
		if err := s.settled(ctx); err != nil {
			return err
		}
	}
	if err := s.add("p99 of warm requests (100 a second) beside 8 cold starts a second", beside, quiet, atMost(3)); err != nil {
		return err
	}
	return s.add("cold starts beside them", colds, nil, nil)
}
