package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edge-serverless-box/esb/tests/bench/measure"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

const (
	// burstSize requests come at once, each of which keeps its worker for asleep.
	burstSize = 64
	asleep    = time.Second
	// lifecyclesAtOnce is how many containers are made or ended at a time.
	lifecyclesAtOnce = 8
)

// burst asks a function that is scaled to zero by many clients at once.
func (s *suite) burst(ctx context.Context) error {
	figure := measure.Times("64 at once", measure.Seconds)
	text, err := s.box.text(ctx, "sleep", fmt.Appendf(nil, `{"action":"sleep","ms":%d}`, asleep.Milliseconds()))
	if err != nil {
		return err
	}
	for range s.bursts {
		if err := s.box.await(ctx, none, "sleep"); err != nil {
			return err
		}
		if err := s.settled(ctx); err != nil {
			return err
		}
		figure.Round()
		if err := s.oneBurst(ctx, text, figure); err != nil {
			return err
		}
	}
	if err := s.box.await(ctx, none, "sleep"); err != nil {
		return err
	}
	return s.add("64 at once on one that sleeps 1 s: seconds beyond that", figure, nil, atMost(2))
}

func (s *suite) oneBurst(ctx context.Context, text []byte, figure *measure.Figure) error {
	lines := make([]*traffic.Line, burstSize)
	for i := range lines {
		line, err := s.box.open(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = line.Close() }()
		lines[i] = line
	}
	causes := make([]string, burstSize)
	began := time.Now()
	var asked sync.WaitGroup
	for i, line := range lines {
		asked.Go(func() {
			status, _, err := line.Ask(text)
			if err != nil || status != http.StatusOK {
				causes[i] = fmt.Sprintf("%d %v", status, err)
			}
		})
	}
	asked.Wait()
	took := time.Since(began)
	for _, cause := range causes {
		if cause != "" {
			figure.Fail(cause)
		}
	}
	if len(figure.Failed()) == 0 {
		figure.Took(took - asleep)
	}
	return nil
}

// lifecycles makes containers, has them answer once, and ends them, by the agent and by containerd's client.
func (s *suite) lifecycles(ctx context.Context) error {
	ours, base := measure.Values("by the agent", measure.PerSecond), measure.Values("containerd's client", measure.PerSecond)
	s.containerd.Network = nil
	agent := func(ctx context.Context) error {
		w, err := s.box.ensure(ctx, "bench-cycle", false)
		if err != nil {
			return err
		}
		if err := invoke(ctx, w); err != nil {
			return err
		}
		return s.box.destroy(ctx, w)
	}
	plain := func(ctx context.Context) error {
		_, container, err := s.containerd.Start(ctx)
		if err != nil {
			return err
		}
		return container.Destroy(ctx)
	}
	for range s.rounds {
		for _, way := range []struct {
			figure *measure.Figure
			cycle  func(context.Context) error
		}{{ours, agent}, {base, plain}} {
			if err := s.settled(ctx); err != nil {
				return err
			}
			began := time.Now()
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(lifecyclesAtOnce)
			for range s.cycles {
				group.Go(func() error { return way.cycle(ctx) })
			}
			if err := group.Wait(); err != nil {
				return err
			}
			way.figure.Is(float64(s.cycles) / time.Since(began).Seconds())
		}
	}
	return s.add("containers made, asked and ended", ours, base, atLeast(2.5))
}
