package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/tests/bench/baseline"
	"github.com/edge-serverless-box/esb/tests/bench/machine"
	"github.com/edge-serverless-box/esb/tests/bench/measure"
)

// plan says how much is measured.
type plan struct {
	quick  bool
	rounds int
	// only matches the names of the series to be measured.
	only *regexp.Regexp
	// quiet bounds the wait for a quiet machine before a series; settle that between two samples of a start.
	quiet, settle time.Duration
	// requests are sent to each target in a round by one client; crowd is for how long several do.
	requests int
	crowd    time.Duration
	// starts of each kind in a round, and cycles of making and ending a container.
	starts, cycles int
	// bursts in all.
	bursts int
	// thaws in a round.
	thaws int
	// idle workers are made in a round and looked at for their memory.
	idle int
	// beside is for how long a stream of warm requests is sent in a round, alone and beside cold starts.
	beside time.Duration
}

var (
	whole = plan{rounds: 5, quiet: time.Minute, settle: 2 * time.Second, requests: 1500, crowd: 3 * time.Second, starts: 6, cycles: 32, bursts: 5, thaws: 20, idle: 32,
		beside: 5 * time.Second}
	short = plan{quick: true, rounds: 3, quiet: 4 * time.Second, settle: 400 * time.Millisecond, requests: 400, crowd: time.Second, starts: 3, cycles: 16, bursts: 2, thaws: 8,
		idle: 12, beside: 2 * time.Second}
)

// suite is one run.
type suite struct {
	plan
	box    *box
	report *measure.Report
	out    io.Writer
	// parking is how many sandboxes the box keeps that are nobody's.
	parking int
	// runtimes is how many of them have a runtime started ahead of a function.
	runtimes int

	bare       *baseline.Bare
	runc       *baseline.Runc
	containerd *baseline.Containerd
	cni        *baseline.CNI
	// docker and nginx may be missing; why is said in their rows.
	docker       *baseline.Docker
	dockerWhy    string
	nginx        *baseline.Nginx
	nginxWhy     string
	nginxProgram string
}

// open makes the baselines.
func (s *suite) open(ctx context.Context) (err error) {
	b := s.box
	if s.bare, err = baseline.OpenBare(b.function, event); err != nil {
		return err
	}
	if s.runc, err = b.copyBundle(ctx); err != nil {
		return err
	}
	if s.containerd, err = baseline.OpenContainerd(ctx, b.containerdSocket(), b.rieImage, event); err != nil {
		return err
	}
	subnet := "10.97." + strings.Split(b.Subnet, ".")[2]
	if s.cni, err = baseline.OpenCNI(b.BinDir, filepath.Join(b.Home, "cni"), b.Bridge+"b", subnet); err != nil {
		return err
	}
	if s.docker, err = baseline.OpenDocker(ctx, b.rieImage, rieTag, event); err != nil {
		s.dockerWhy = "no Docker daemon runs here"
	}
	var version string
	if s.nginxProgram, version, err = baseline.FetchNginx(ctx, filepath.Join(b.root, ".esb", "tools")); err != nil {
		s.nginxWhy = err.Error()
	}
	s.report.Machine.Versions = append(s.report.Machine.Versions, versions(ctx, b.BinDir, version)...)
	return nil
}

// versions of what takes part, for the machine's line.
func versions(ctx context.Context, binDir, nginx string) []string {
	var all []string
	for _, program := range []string{"containerd", "runc"} {
		out, err := exec.CommandContext(ctx, filepath.Join(binDir, program), "--version").Output()
		if fields := strings.Fields(string(out)); err == nil && len(fields) > 2 {
			release, _, _ := strings.Cut(strings.TrimPrefix(fields[2], "v"), "+")
			all = append(all, program+" "+release)
		}
	}
	if nginx != "" {
		all = append(all, nginx)
	}
	return all
}

// close ends the baselines, before the box.
func (s *suite) close() {
	ctx := context.Background()
	var errs []error
	if s.nginx != nil {
		s.nginx.Close()
	}
	if s.docker != nil {
		errs = append(errs, s.docker.Close(ctx))
	}
	if s.containerd != nil {
		errs = append(errs, s.containerd.Close(ctx))
	}
	if s.cni != nil {
		errs = append(errs, s.cni.Close())
	}
	if s.runc != nil {
		errs = append(errs, s.runc.Close())
	}
	if s.bare != nil {
		s.bare.Close()
	}
	if err := errors.Join(errs...); err != nil {
		_, _ = fmt.Fprintln(s.out, "bench: clean up:", err)
	}
}

// seriesNames are what is measured, in the order of the table. The last one changes the box.
var seriesNames = []string{
	"cold starts", "64 at once", "containers made and ended", "frozen", "warm requests", "idle workers", "warm beside cold", "nothing parked",
}

// run measures all that is asked for, also after something that has failed.
func (s *suite) run(ctx context.Context) error {
	var errs []error
	for i, measured := range []func(context.Context) error{s.coldStarts, s.burst, s.lifecycles, s.frozen, s.warm, s.density, s.besideCold, s.unparked} {
		name := seriesNames[i]
		if !s.only.MatchString(name) {
			continue
		}
		if err := s.series(ctx, name, measured); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			why, _, _ := strings.Cut(err.Error(), "\n")
			s.report.Rows = append(s.report.Rows, measure.Row{What: name, Missing: why})
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// series measures one when the machine is quiet, and says of its rows when it was not.
func (s *suite) series(ctx context.Context, name string, measured func(context.Context) error) error {
	noise, err := machine.AwaitQuiet(ctx, s.quiet)
	if err != nil {
		return err
	}
	before, err := machine.Now()
	if err != nil {
		return err
	}
	rows, began := len(s.report.Rows), time.Now()
	failed := measured(ctx)
	if err := noise.End(before); err != nil {
		return err
	}
	s.report.Noise[name] = noise
	for i := rows; i < len(s.report.Rows); i++ {
		if s.report.Rows[i].Noisy = noise.Noisy; noise.Noisy != "" {
			s.report.Rows[i].Reached = nil // it says more of the machine than of the box
		}
	}
	_, _ = fmt.Fprintf(s.out, "bench: %s: %s (load %s, before it %.0f %% idle)\n", name, time.Since(began).Round(100*time.Millisecond), noise.Load, 100*noise.Idle)
	return failed
}

// settled lets what the sample before has left in the background come to its end: the next sandboxes are parked, among others.
func (s *suite) settled(ctx context.Context) error {
	if err := s.box.awaitParked(ctx, s.parking, s.runtimes, 4*s.settle); err != nil {
		return err
	}
	return machine.Settle(ctx, s.settle)
}

// add appends a row.
func (s *suite) add(what string, figure, base *measure.Figure, target *measure.Target) error {
	return s.report.Add(measure.Row{What: what, Target: target}, figure, base)
}

func atMost(limit float64) *measure.Target { return &measure.Target{Limit: limit} }

func atLeast(limit float64) *measure.Target { return &measure.Target{Limit: limit, AtLeast: true} }
