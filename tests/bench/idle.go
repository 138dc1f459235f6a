package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/edge-serverless-box/esb/tests/bench/baseline"
	"github.com/edge-serverless-box/esb/tests/bench/machine"
	"github.com/edge-serverless-box/esb/tests/bench/measure"
)

// frozen compares a request to a worker that was frozen with one to a worker that was idle as long.
func (s *suite) frozen(ctx context.Context) error {
	frozen, warm := measure.Times("frozen", measure.Milliseconds), measure.Times("idle as long", measure.Milliseconds)
	workers := map[string]string{}
	ask := func(function string, figure *measure.Figure) error {
		if err := s.box.await(ctx, func(p pool) bool { return p.Frozen == 1 }, "freezing"); err != nil {
			return err
		}
		took, process, err := s.box.once(ctx, function)
		if err != nil {
			return err
		}
		if before := workers[function]; before != "" && before != process {
			return fmt.Errorf("%s has another worker than before", function)
		}
		workers[function] = process
		figure.Took(took)
		return nil
	}
	for _, function := range []string{"freezing", "pausing"} {
		if _, _, err := s.box.once(ctx, function); err != nil {
			return err
		}
	}
	for range s.rounds {
		frozen.Round()
		warm.Round()
		for range s.thaws {
			// The idle one is asked between a thaw and the freeze after it, so that both have rested.
			if err := ask("freezing", frozen); err != nil {
				return err
			}
			if err := ask("pausing", warm); err != nil {
				return err
			}
		}
	}
	return s.add("request to a frozen worker", frozen, warm, atMost(1.5))
}

// memory is what idle workers take of the machine, for each, in megabytes; of processes it is the PSS. beyond is what they take besides
// their functions' processes: by the memory that the machine has lost or by the processes, whichever is more, because the machine gives
// memory back by itself, too.
type memory struct{ beyond, whole, function, supervisor, shim *measure.Figure }

// density is what idle workers take of the machine.
func (s *suite) density(ctx context.Context) error {
	m := memory{
		measure.Values("all but the function's process", measure.Megabytes),
		measure.Values("worker", measure.Megabytes), measure.Values("function's process", measure.Megabytes),
		measure.Values("lambda-init", measure.Megabytes), measure.Values("shim", measure.Megabytes),
	}
	// The first finds nothing that was used lately.
	first, err := s.idleWorker(ctx)
	if err != nil {
		return err
	}
	if err := s.box.destroy(ctx, first); err != nil {
		return err
	}
	for range s.rounds {
		if err := s.idleWorkers(ctx, m); err != nil {
			return err
		}
	}
	if err := s.add("memory of an idle Go worker beyond its function's process", m.beyond, nil, atMost(1.5)); err != nil {
		return err
	}
	for _, part := range []struct {
		what   string
		figure *measure.Figure
	}{{"all of it (MemAvailable)", m.whole}, {"its function's process (PSS)", m.function}, {"lambda-init (PSS)", m.supervisor}, {"its share of shims (PSS)", m.shim}} {
		if err := s.add(part.what, part.figure, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// idleWorkers makes workers, looks at them, and ends them again. What else the machine does in the same time is taken for steady: the
// memory before and after is weighed against that in between.
func (s *suite) idleWorkers(ctx context.Context, m memory) (err error) {
	before, err := s.available(ctx)
	if err != nil {
		return err
	}
	var workers []baseline.Worker
	end := func() error {
		group, ctx := errgroup.WithContext(context.WithoutCancel(ctx))
		group.SetLimit(lifecyclesAtOnce)
		for _, w := range workers {
			group.Go(func() error { return s.box.destroy(ctx, w) })
		}
		workers = nil
		return group.Wait()
	}
	defer func() { err = errors.Join(err, end()) }()
	for range s.idle {
		w, err := s.idleWorker(ctx)
		if err != nil {
			return err
		}
		workers = append(workers, w)
	}
	between, err := s.available(ctx)
	if err != nil {
		return err
	}
	function, besides, err := s.parts(ctx, workers, m)
	if err != nil {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	after, err := s.available(ctx)
	if err != nil {
		return err
	}
	whole := (float64(before+after)/2 - float64(between)) / s.megabytes()
	m.whole.Is(whole)
	m.beyond.Is(max(whole-function, besides))
	return nil
}

// megabytes makes bytes of all workers of a round megabytes of each.
func (s *suite) megabytes() float64 { return float64(s.idle) * (1 << 20) }

// available is the machine's memory when it has come to rest.
func (s *suite) available(ctx context.Context) (int64, error) {
	if err := s.settled(ctx); err != nil {
		return 0, err
	}
	return machine.Available()
}

// parts are the processes of workers: those of functions, and those besides.
func (s *suite) parts(ctx context.Context, workers []baseline.Worker, m memory) (function, besides float64, err error) {
	var ofFunctions, ofSupervisors, ofShims int64
	shims := map[int]bool{}
	for _, w := range workers {
		pid, err := s.box.process(ctx, w.ID)
		if err != nil {
			return 0, 0, err
		}
		children, err := machine.Children(pid)
		if err != nil {
			return 0, 0, err
		}
		own, err := proportional(pid)
		if err != nil {
			return 0, 0, err
		}
		theirs, err := proportional(children...)
		if err != nil {
			return 0, 0, err
		}
		parent, err := machine.Parent(pid)
		if err != nil {
			return 0, 0, err
		}
		ofSupervisors += own
		ofFunctions += theirs
		shims[parent] = true
	}
	for pid := range shims {
		held, err := proportional(pid)
		if err != nil {
			return 0, 0, err
		}
		ofShims += held
	}
	function, besides = float64(ofFunctions)/s.megabytes(), float64(ofSupervisors+ofShims)/s.megabytes()
	m.function.Is(function)
	m.supervisor.Is(float64(ofSupervisors) / s.megabytes())
	m.shim.Is(float64(ofShims) / s.megabytes())
	return function, besides, nil
}

// idleWorker is one that has answered once.
func (s *suite) idleWorker(ctx context.Context) (baseline.Worker, error) {
	w, err := s.box.ensure(ctx, "bench-idle", false)
	if err != nil {
		return w, err
	}
	return w, invoke(ctx, w)
}

func proportional(pids ...int) (sum int64, err error) {
	for _, pid := range pids {
		held, err := machine.Proportional(pid)
		if err != nil {
			return 0, err
		}
		sum += held
	}
	return sum, nil
}
