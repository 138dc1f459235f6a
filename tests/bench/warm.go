package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/tests/bench/baseline"
	"github.com/edge-serverless-box/esb/tests/bench/machine"
	"github.com/edge-serverless-box/esb/tests/bench/measure"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

// block is how many requests a target gets before it is the next one's turn: few enough that noise meets all alike, enough that each
// finds what it had left in the CPUs' caches.
const block = 50

// target is something that answers requests.
type target struct {
	// took is how long its answers took, cpu what of the CPUs a process took for one request.
	took *measure.Figure
	cpu  []*processor
	line *traffic.Line
	text []byte
	// before and after are called around a round.
	before, after func() error
}

// processor is a process whose time on the CPUs counts.
type processor struct {
	figure *measure.Figure
	pid    int
	began  time.Duration
	took   time.Duration
}

func processorOf(name string, pid int) *processor {
	return &processor{figure: measure.Values(name, measure.Microseconds), pid: pid}
}

func (p *processor) begin() (err error) {
	p.began, err = machine.CPUTime(p.pid)
	return err
}

func (p *processor) end() error {
	now, err := machine.CPUTime(p.pid)
	p.took += now - p.began
	return err
}

// round makes what has been taken since the last round a value of it.
func (p *processor) round(requests int) {
	p.figure.Is(float64(p.took.Nanoseconds()) / 1e3 / float64(max(requests, 1)))
	p.took = 0
}

// warm compares a request through the gateway with the same event sent straight to a worker, through nginx, and to a worker behind a
// program that behaves as RIE does.
func (s *suite) warm(ctx context.Context) (err error) {
	var made []baseline.Worker
	defer func() {
		for _, w := range made {
			err = errors.Join(err, s.box.destroy(context.WithoutCancel(ctx), w))
		}
	}()
	for range crowd {
		w, err := s.box.ensure(ctx, "bench-direct", false)
		if err != nil {
			return err
		}
		made = append(made, w)
	}
	workers := made
	rieWorker, err := s.box.ensure(ctx, "bench-rie", true)
	if err != nil {
		return err
	}
	made = append(made, rieWorker)
	for _, w := range made {
		if err := invoke(ctx, w); err != nil {
			return err
		}
	}
	if s.nginxWhy == "" {
		if s.nginx, err = baseline.StartNginx(ctx, s.nginxProgram, filepath.Join(s.box.Home, "nginx"), workers); err != nil {
			return err
		}
	}
	t, err := s.targets(ctx, workers[0], rieWorker)
	defer t.close()
	if err != nil {
		return err
	}
	if err := s.oneClient(ctx, t); err != nil {
		return err
	}
	return s.manyClients(ctx, t)
}

// targets of one client.
type targets struct {
	straight, rie, gateway, nginx *target
	allocations                   *measure.Figure
	all                           []*target
}

func (t *targets) close() {
	for _, one := range t.all {
		_ = one.line.Close()
	}
}

func (s *suite) targets(ctx context.Context, worker, rieWorker baseline.Worker) (*targets, error) {
	t := &targets{allocations: measure.Values("allocations", measure.Pieces)}
	add := func(name string, line *traffic.Line, text []byte, err error) (*target, error) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		one := &target{took: measure.Times(name, measure.Microseconds), line: line, text: text}
		t.all = append(t.all, one)
		return one, nil
	}
	line, text, err := straight(ctx, worker)
	if t.straight, err = add("straight to the worker", line, text, err); err != nil {
		return t, err
	}
	supervisor, err := s.box.process(ctx, worker.ID)
	if err != nil {
		return t, err
	}
	functions, err := machine.Children(supervisor)
	if err != nil {
		return t, err
	}
	if len(functions) != 1 {
		return t, fmt.Errorf("lambda-init of %s has %d processes beside itself", worker.ID, len(functions))
	}
	t.straight.cpu = []*processor{processorOf("lambda-init", supervisor), processorOf("function", functions[0])}
	if s.nginx != nil {
		line, text, err := s.throughNginx(ctx, 0)
		if t.nginx, err = add("through nginx", line, text, err); err != nil {
			return t, err
		}
		t.nginx.cpu = []*processor{processorOf("nginx", s.nginx.PID)}
	}
	line, err = s.box.open(ctx)
	if err != nil {
		return t, err
	}
	text, err = s.box.text(ctx, "warm", body)
	if t.gateway, err = add("through the gateway", line, text, err); err != nil {
		return t, err
	}
	status, err := s.box.Status(ctx)
	if err != nil {
		return t, err
	}
	t.gateway.cpu = []*processor{processorOf("gateway", status.PIDs()["gateway"])}
	s.countAllocations(ctx, t)
	line, text, err = straight(ctx, rieWorker)
	t.rie, err = add("RIE stand-in", line, text, err)
	return t, err
}

// throughNginx connects to nginx for its nth worker.
func (s *suite) throughNginx(ctx context.Context, n int) (*traffic.Line, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://%s/%d", s.nginx.Addr, n), strings.NewReader(string(event)))
	if err != nil {
		return nil, nil, err
	}
	text, err := traffic.Write(r)
	if err != nil {
		return nil, nil, err
	}
	line, err := traffic.Open(ctx, (&net.Dialer{}).DialContext, s.nginx.Addr)
	return line, text, err
}

// countAllocations has the gateway's allocations counted around its rounds.
func (s *suite) countAllocations(ctx context.Context, t *targets) {
	var began, look float64
	t.gateway.before = func() error {
		first, err := s.mallocs(ctx)
		if err != nil {
			return err
		}
		// To look allocates, too.
		if began, err = s.mallocs(ctx); err == nil {
			look = began - first
		}
		return err
	}
	t.gateway.after = func() error {
		now, err := s.mallocs(ctx)
		if err == nil {
			t.allocations.Is(max(now-began-look, 0) / float64(s.blocks()*block))
		}
		return err
	}
}

// blocks are how many a target gets in a round.
func (s *suite) blocks() int { return max(s.requests/block, 1) }

// mallocs is how often the gateway has allocated memory so far.
func (s *suite) mallocs(ctx context.Context) (float64, error) {
	answer, err := s.box.Do(ctx, http.MethodGet, s.box.AdminURL+"/metrics", "", nil)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(answer.Body)) {
		if value, ok := strings.CutPrefix(line, "go_memstats_mallocs_total "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, errors.New("the gateway's metrics have no go_memstats_mallocs_total")
}

// oneClient asks each target by one client, in blocks that take turns.
func (s *suite) oneClient(ctx context.Context, t *targets) error {
	for _, one := range t.all {
		one.took.Round() // of what is not counted
		if err := one.ask(ctx, 4*block, nil); err != nil {
			return err
		}
	}
	for range s.rounds {
		for _, one := range t.all {
			one.took.Round()
		}
		if err := t.gateway.before(); err != nil {
			return err
		}
		for range s.blocks() {
			for _, one := range t.all {
				if err := one.ask(ctx, block, one.took); err != nil {
					return err
				}
			}
		}
		if err := t.gateway.after(); err != nil {
			return err
		}
		for _, one := range t.all {
			for _, p := range one.cpu {
				p.round(s.blocks() * block)
			}
		}
	}
	if err := s.add("request straight to the worker", t.straight.took, t.rie.took, atMost(0.6)); err != nil {
		return err
	}
	gatewayAdds := measure.Less("gateway adds", t.gateway.took, t.straight.took)
	if t.nginx == nil {
		for _, what := range []string{"what the gateway adds (p50)", "CPU a request of the gateway, 1 client"} {
			if err := s.report.Add(measure.Row{What: what, Missing: s.nginxWhy}, gatewayAdds, nil); err != nil {
				return err
			}
		}
	} else {
		for _, row := range []struct {
			what         string
			figure, base *measure.Figure
			target       *measure.Target
		}{
			{"what the gateway adds (p50)", gatewayAdds, measure.Less("nginx adds", t.nginx.took, t.straight.took), atMost(2)},
			{"CPU a request of the gateway, 1 client", t.gateway.cpu[0].figure, t.nginx.cpu[0].figure, nil},
			{"request through the gateway", t.gateway.took, t.nginx.took, nil},
		} {
			if err := s.add(row.what, row.figure, row.base, row.target); err != nil {
				return err
			}
		}
	}
	if err := s.add("allocations a request, gateway", t.allocations, nil, nil); err != nil {
		return err
	}
	return s.add("CPU a request of lambda-init", t.straight.cpu[0].figure, t.straight.cpu[1].figure, nil)
}

// ask sends so many requests one after the other. took may be nil for what does not count.
func (one *target) ask(ctx context.Context, requests int, took *measure.Figure) error {
	for _, p := range one.cpu {
		if err := p.begin(); err != nil {
			return err
		}
	}
	for range requests {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		status, answer, err := one.line.Ask(one.text)
		lasted := time.Since(began)
		if err != nil {
			return fmt.Errorf("%s: %w", one.took.Name, err) // the connection is gone
		}
		if status == http.StatusOK {
			_, err = instance(answer)
		} else {
			err = fmt.Errorf("%d %.100q", status, answer)
		}
		switch {
		case err != nil:
			one.took.Fail(err.Error())
		case took != nil:
			took.Took(lasted)
		}
	}
	for _, p := range one.cpu {
		if err := p.end(); err != nil {
			return err
		}
		if took == nil {
			p.took = 0
		}
	}
	return nil
}

// manyClients asks gateway and nginx by as many clients as there are workers behind each.
func (s *suite) manyClients(ctx context.Context, t *targets) error {
	gateway, nginx := &crowded{name: "gateway"}, &crowded{name: "nginx"}
	defer gateway.close()
	defer nginx.close()
	ways := []*crowded{gateway}
	for range crowd {
		line, err := s.box.open(ctx)
		if err != nil {
			return err
		}
		gateway.lines, gateway.texts = append(gateway.lines, line), append(gateway.texts, t.gateway.text)
	}
	gateway.cpu, gateway.rate = processorOf("gateway", t.gateway.cpu[0].pid), measure.Values("gateway", measure.PerSecond)
	if s.nginx != nil {
		for n := range crowd {
			line, text, err := s.throughNginx(ctx, n)
			if err != nil {
				return err
			}
			nginx.lines, nginx.texts = append(nginx.lines, line), append(nginx.texts, text)
		}
		nginx.cpu, nginx.rate = processorOf("nginx", s.nginx.PID), measure.Values("nginx", measure.PerSecond)
		ways = append(ways, nginx)
	}
	if err := gateway.ask(ctx, s.crowd/2, false); err != nil { // its workers are started
		return err
	}
	for range s.rounds {
		for _, way := range ways {
			if err := way.ask(ctx, s.crowd, true); err != nil {
				return err
			}
		}
	}
	const what = "CPU a request of the gateway, 8 clients (JWT, event, access log)"
	if s.nginx == nil {
		return s.report.Add(measure.Row{What: what, Missing: s.nginxWhy, Target: atMost(2.5)}, gateway.cpu.figure, nil)
	}
	if err := s.add(what, gateway.cpu.figure, nginx.cpu.figure, atMost(2.5)); err != nil {
		return err
	}
	return s.add("requests through the gateway, 8 clients", gateway.rate, nginx.rate, nil)
}

// crowded is a target of many clients, each with a connection of its own.
type crowded struct {
	name  string
	lines []*traffic.Line
	texts [][]byte
	cpu   *processor
	rate  *measure.Figure
}

func (c *crowded) close() {
	for _, line := range c.lines {
		_ = line.Close()
	}
}

// ask has all clients ask for a while.
func (c *crowded) ask(ctx context.Context, lasts time.Duration, counts bool) error {
	if err := c.cpu.begin(); err != nil {
		return err
	}
	var mu sync.Mutex // guards served, failed and broken
	served, failed := 0, map[string]int{}
	var broken error
	began := time.Now()
	var clients sync.WaitGroup
	for i, line := range c.lines {
		clients.Go(func() {
			n, causes := 0, map[string]int{}
			var err error
			for ctx.Err() == nil && time.Since(began) < lasts {
				var status int
				var answer []byte
				if status, answer, err = line.Ask(c.texts[i]); err != nil {
					break
				}
				if status != http.StatusOK {
					causes[strconv.Itoa(status)]++
				} else if _, wrong := instance(answer); wrong != nil {
					causes["a wrong answer"]++
				} else {
					n++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			served += n
			for cause, many := range causes {
				failed[cause] += many
			}
			broken = errors.Join(broken, err)
		})
	}
	clients.Wait()
	lasted := time.Since(began)
	if err := errors.Join(broken, c.cpu.end()); err != nil {
		return fmt.Errorf("%s, %d clients: %w", c.name, len(c.lines), err)
	}
	if !counts {
		c.cpu.took = 0
		return nil
	}
	for cause, many := range failed {
		for range many {
			c.cpu.figure.Fail(cause)
		}
	}
	c.cpu.round(served)
	c.rate.Is(float64(served) / lasted.Seconds())
	return nil
}
