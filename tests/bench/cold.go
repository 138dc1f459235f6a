package main

import (
	"context"
	"fmt"
	"time"

	"github.com/edge-serverless-box/esb/tests/bench/measure"
)

// starter is a way to start the function, or something that does not even get so far.
type starter struct {
	figure *measure.Figure
	// start returns how long it took, and what ends what was started; nil when that goes by itself.
	start func(ctx context.Context) (time.Duration, func() error, error)
}

// coldStarts compares requests to functions that are scaled to zero with less and with more of what others do for one.
func (s *suite) coldStarts(ctx context.Context) error {
	bare := starter{measure.Times("clone and exec", measure.Milliseconds), s.startBare}
	runc := starter{measure.Times("runc run", measure.Milliseconds), s.runc.Start}
	plain := starter{measure.Times("containerd's client", measure.Milliseconds), s.startContainerd(false)}
	networked := "containerd's client with CNI"
	if !s.cni.Masquerades {
		networked += ", no iptables here"
	}
	connected := starter{measure.Times(networked, measure.Milliseconds), s.startContainerd(true)}
	golang := s.scaledToZero("cold-go", "cold start, Go")
	python, node := s.scaledToZero("cold-python", "cold start, python3.11"), s.scaledToZero("cold-node", "cold start, nodejs24.x")
	standby := s.scaledToZero("standby", "standing by")
	starters := []starter{bare, runc, plain, connected, golang, python, node, standby}
	docker := starter{measure.Times("docker run", measure.Milliseconds), s.startDocker}
	if s.docker != nil {
		starters = append(starters, docker)
	}
	before := func() error {
		if err := s.box.await(ctx, none, "cold-go", "cold-python", "cold-node"); err != nil {
			return err
		}
		return s.box.await(ctx, func(p pool) bool { return p.Standby == 1 && p.Idle+p.Busy+p.Starting+p.Stopping == 0 }, "standby")
	}
	s.runtimes = 2 // those of Python and Node.js, from their first start on
	if err := s.turns(ctx, before, starters...); err != nil {
		return err
	}
	for _, row := range []struct {
		what         string
		figure, base *measure.Figure
		target       *measure.Target
	}{
		{"cold start, Go", golang.figure, runc.figure, atMost(0.2)},
		{"cold start, Go", golang.figure, bare.figure, atMost(3)},
		{"cold start, python3.11", python.figure, golang.figure, atMost(1.5)},
		{"cold start, nodejs24.x", node.figure, golang.figure, atMost(1.5)},
		{"start of one that stands by", standby.figure, runc.figure, nil},
		{"cold start, Go", golang.figure, plain.figure, nil},
		{"cold start, Go", golang.figure, connected.figure, nil},
	} {
		if err := s.add(row.what, row.figure, row.base, row.target); err != nil {
			return err
		}
	}
	return s.report.Add(measure.Row{What: "cold start, Go", Missing: s.dockerWhy}, golang.figure, docker.figure)
}

// unparked is a cold start where no sandbox has been made ahead of need: the box is told to make none.
func (s *suite) unparked(ctx context.Context) error {
	s.parking, s.runtimes = 0, 0
	s.box.Set(park(s.parking))
	if err := s.box.Up(ctx); err != nil {
		return err
	}
	runc := starter{measure.Times("runc run", measure.Milliseconds), s.runc.Start}
	golang := s.scaledToZero("cold-go", "cold start, Go")
	if err := s.turns(ctx, func() error { return s.box.await(ctx, none, "cold-go") }, runc, golang); err != nil {
		return err
	}
	return s.add("cold start, Go, nothing parked", golang.figure, runc.figure, atMost(1.2))
}

// turns starts each after the other, again and again; before is called before each turn.
func (s *suite) turns(ctx context.Context, before func() error, starters ...starter) error {
	// The first of each fetches what all others find: images unpacked, pages read.
	if err := before(); err != nil {
		return err
	}
	for _, one := range starters {
		if _, err := s.start(ctx, one); err != nil {
			return err
		}
	}
	for range s.rounds {
		for _, one := range starters {
			one.figure.Round()
		}
		for range s.starts {
			if err := before(); err != nil {
				return err
			}
			for _, one := range starters {
				if err := s.settled(ctx); err != nil {
					return err
				}
				took, err := s.start(ctx, one)
				if err != nil {
					return err
				}
				one.figure.Took(took)
			}
		}
	}
	return nil
}

func (s *suite) start(ctx context.Context, one starter) (time.Duration, error) {
	took, end, err := one.start(ctx)
	if err == nil && end != nil {
		err = end()
	}
	return took, err
}

// scaledToZero starts a function by a request, and proves that it did: no process answers twice.
func (s *suite) scaledToZero(function, name string) starter {
	seen := map[string]bool{}
	return starter{measure.Times(name, measure.Milliseconds), func(ctx context.Context) (time.Duration, func() error, error) {
		took, process, err := s.box.once(ctx, function)
		if err == nil && seen[process] {
			err = fmt.Errorf("%s was not cold: process %s has answered before", function, process)
		}
		seen[process] = true
		return took, nil, err
	}}
}

func (s *suite) startBare(ctx context.Context) (time.Duration, func() error, error) {
	answer, took, end, err := s.bare.Start(ctx)
	if err == nil {
		_, err = instance(answer)
	}
	return took, end, err
}

func (s *suite) startContainerd(network bool) func(context.Context) (time.Duration, func() error, error) {
	return func(ctx context.Context) (time.Duration, func() error, error) {
		if s.containerd.Network = nil; network {
			s.containerd.Network = s.cni
		}
		began := time.Now()
		answer, container, err := s.containerd.Start(ctx)
		took := time.Since(began)
		if err != nil {
			return 0, nil, err
		}
		_, err = instance(answer)
		return took, func() error { return container.Destroy(ctx) }, err
	}
}

func (s *suite) startDocker(ctx context.Context) (time.Duration, func() error, error) {
	answer, took, end, err := s.docker.Start(ctx)
	if err == nil {
		_, err = instance(answer)
	}
	return took, end, err
}
