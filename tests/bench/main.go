// Command bench measures a box of its own as ratios against baselines of the same run and machine, which take turns with it, and prints
// one table; docs/performance.md explains its rows.
//
//	bench [quick] [-readme] [-json FILE] [-only EXPRESSION]
//
// It fails when something does not answer, never by figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/tests/bench/machine"
	"github.com/edge-serverless-box/esb/tests/bench/measure"
	"github.com/edge-serverless-box/esb/tests/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	root, err := stack.RepositoryRoot()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "the short form, under 3 minutes; the word quick says the same")
	readme := flags.Bool("readme", false, "put the table into README.md")
	only := flags.String("only", "", "the series whose names this regular expression matches: "+strings.Join(seriesNames, ", "))
	file := flags.String("json", filepath.Join(root, ".esb", "bench.json"), "where the figures go")
	if at := slices.Index(args, "quick"); at >= 0 {
		args = slices.Delete(slices.Clone(args), at, at+1)
		*quick = true
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("there is nothing to do with %q: the words are quick, -readme, -json FILE and -only EXPRESSION", flags.Arg(0))
	}
	if os.Getuid() != 0 {
		return errors.New("it starts containers: run it as root")
	}
	p := whole
	if *quick {
		p = short
	}
	if p.only, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if *only != "" && *readme {
		return errors.New("-readme goes with a whole run, not with -only")
	}
	began := time.Now()
	report, err := measured(ctx, root, p, out)
	if report == nil {
		return err
	}
	// What was measured is kept, also of a run that failed.
	report.Notes = append(report.Notes, fmt.Sprintf("It took %s. Not part of it: up on a fresh machine (docs/performance.md).", time.Since(began).Round(time.Second)))
	_, _ = fmt.Fprintln(out)
	err = errors.Join(err, report.Text(out), report.Write(*file))
	if failures := report.Failures(); len(failures) > 0 {
		err = errors.Join(err, fmt.Errorf("not answered as it should be: %v", failures))
	}
	if *readme && err == nil {
		err = report.Put(filepath.Join(root, "README.md"))
	}
	return err
}

// measured starts a box and measures it. The report is nil when nothing could be measured.
func measured(ctx context.Context, root string, p plan, out io.Writer) (report *measure.Report, err error) {
	home, err := os.MkdirTemp("", "esb-bench-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(home)
		} else {
			_, _ = fmt.Fprintln(out, "the state of the box is kept in", home)
		}
	}()
	_, _ = fmt.Fprintln(out, "bench: starting a box")
	b, err := startBox(ctx, root, home)
	if b != nil {
		defer func() { err = errors.Join(err, b.close()) }()
	}
	if err != nil {
		return nil, err
	}
	s := &suite{plan: p, box: b, out: out, parking: parking, report: &measure.Report{
		Machine: machine.Describe(), Quick: p.quick, Began: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Rounds: p.rounds, Noise: map[string]machine.Noise{},
	}}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	return s.report, s.run(ctx)
}
