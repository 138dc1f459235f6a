package bench

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
)

const (
	// overloaded functions with so many workers each; one more is quiet.
	overloaded, workersEach = 20, 3
	quietRate               = 20
)

// BenchmarkOverload asks twenty functions together for twice what they can answer, and looks at what is answered, how fast the rest is
// refused, what that costs a function that is hardly asked, and how large the gateway grows. ESB_BENCH_HOGS has as many functions with
// two CPUs burn all that they get meanwhile.
func BenchmarkOverload(b *testing.B) {
	hogs, _ := strconv.Atoi(os.Getenv("ESB_BENCH_HOGS"))
	dir := b.TempDir()
	var functions, routes strings.Builder
	functions.WriteString("functions:\n")
	routes.WriteString("routes:\n")
	add := func(name string, memory, workers int) {
		fmt.Fprintf(&functions, "  %s: {image: \"esb/lambda-chaos:latest\", timeout: 60, memory_size: %d, scaling: {max_capacity: %d, min_capacity: %d, idle_timeout: 600}}\n", name, memory, workers, workers)
		fmt.Fprintf(&routes, "  - {path: /%s, method: POST, function: %s, auth: none}\n", name, name)
	}
	for i := range overloaded {
		add(fmt.Sprint("f", i), 512, workersEach)
	}
	add("quiet", 512, 1)
	for i := range hogs {
		fmt.Fprintf(&functions, "  hog%d: {code: ./hog, runtime: python3.11, handler: app.handler, timeout: 120, memory_size: 3538}\n", i)
		fmt.Fprintf(&routes, "  - {path: /hog%d, method: POST, function: hog%d, auth: none}\n", i, i)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(b, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(b, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	write("hog/app.py", "import os, time\ndef handler(event, context):\n    for _ in range(3):\n        if os.fork() == 0: break\n    end = time.time() + 75\n    while time.time() < end: pass\n    return {'statusCode': 200}\n")
	box, err := stack.Prepare(b.TempDir(), stack.Options{
		FunctionsConfig: write("functions.yml", functions.String()), RoutingConfig: write("routing.yml", routes.String()),
		// The clients have one address, and open a connection for each request that waits.
		Env: []string{"GATEWAY_MAX_CONNECTIONS=8192", "GATEWAY_MAX_CONNECTIONS_PER_ADDRESS=8192", "FUNCTION_CPU_WEIGHT=" + cmp.Or(os.Getenv("ESB_BENCH_CPU_WEIGHT"), "12")}, // the default; other tests have another
	})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, box.Down()) })
	require.NoError(b, box.Up(b.Context()))
	for i := range overloaded {
		name := fmt.Sprint("f", i)
		stack.Eventually(b, func() bool { return len(box.Containers(b, name)) == workersEach }, "workers of %s", name)
	}
	l := &load{url: box.HTTPURL, gateway: gatewayPID(b, box), client: &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, MaxIdleConnsPerHost: 4096, MaxIdleConns: 4096, IdleConnTimeout: 10 * time.Second,
	}}}
	b.ResetTimer()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		var burning sync.WaitGroup
		for i := range hogs {
			burning.Go(func() { _, _ = l.ask(ctx, fmt.Sprint("hog", i), "{}") })
		}
		_ = l.closed(2*overloaded*workersEach, 5*time.Second) // warm
		peak := l.closed(2*overloaded*workersEach, 10*time.Second)
		time.Sleep(2 * time.Second)
		alone := l.open(0, 10*time.Second)
		before := rss(l.gateway)
		gateway, generator := schedule(l.gateway), schedule(os.Getpid())
		beside := l.open(2*peak, 30*time.Second)
		b.Logf("gateway %s, generator %s", schedule(l.gateway).since(gateway), schedule(os.Getpid()).since(generator))
		b.Logf("peak %.0f/s; twice that: answered %.0f/s (%.0f %%), refused %d, others %d %v", peak, beside.goodput, 100*beside.goodput/peak, len(beside.refused), beside.others, beside.errors())
		b.Logf("answers %s; refusals %s", quantiles(beside.served), quantiles(beside.refused))
		b.Logf("quiet alone %s, beside %s; failed %d, %d", quantiles(alone.quiet), quantiles(beside.quiet), alone.quietFailed, beside.quietFailed)
		b.Logf("gateway RSS before %d MiB, at most %d; load %s", before, beside.rss, loadAverage())
		cancel()
		burning.Wait()
	}
}

// load asks the gateway.
type load struct {
	url     string
	client  *http.Client
	gateway int
}

func (l *load) ask(ctx context.Context, function, body string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+"/"+function, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, err
	}
	answer, err := l.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

const sleep = `{"action":"sleep","ms":20}`

// closed has so many clients ask one after the other, and returns how many answers a second that gives.
func (l *load) closed(clients int, d time.Duration) float64 {
	var n atomic.Int64
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				if status, err := l.ask(ctx, fmt.Sprint("f", i%overloaded), sleep); err == nil && status == 200 {
					n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / d.Seconds()
}

// account is what came of an open loop.
type account struct {
	mu                     sync.Mutex
	served, refused, quiet []time.Duration
	quietFailed, others    int
	why                    map[string]int
	goodput                float64
	rss                    int
}

func (a *account) errors() map[string]int { return a.why }

// open asks at a rate, whatever becomes of it, and the quiet function beside.
func (l *load) open(rate float64, d time.Duration) *account {
	a := &account{why: map[string]int{}}
	began := time.Now()
	var wg, asked sync.WaitGroup
	wg.Go(func() {
		for i := 0; time.Since(began) < d; i++ {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / quietRate)))
			asked.Go(func() {
				at := time.Now()
				status, err := l.ask(context.Background(), "quiet", `{"action":"ok"}`)
				a.mu.Lock()
				defer a.mu.Unlock()
				if a.quiet = append(a.quiet, time.Since(at)); err != nil || status != 200 {
					a.quietFailed++
				}
			})
		}
	})
	inTime := 0
	if rate > 0 {
		wg.Go(func() {
			for i := 0; time.Since(began) < d; i++ {
				if pause := time.Until(began.Add(time.Duration(float64(i) / rate * float64(time.Second)))); pause > 0 {
					time.Sleep(pause)
				}
				asked.Go(func() {
					at := time.Now()
					status, err := l.ask(context.Background(), fmt.Sprint("f", i%overloaded), sleep)
					took := time.Since(at)
					a.mu.Lock()
					defer a.mu.Unlock()
					switch {
					case err == nil && status == 200:
						a.served = append(a.served, took)
						if time.Since(began) < d {
							inTime++
						}
					case err == nil && status == 429:
						a.refused = append(a.refused, took)
					default:
						a.others++
						why := strconv.Itoa(status)
						if err != nil {
							why = err.Error()[max(len(err.Error())-40, 0):]
						}
						a.why[why]++
					}
				})
			}
		})
	}
	for time.Since(began) < d {
		a.rss = max(a.rss, rss(l.gateway))
		time.Sleep(200 * time.Millisecond)
	}
	wg.Wait()
	asked.Wait()
	a.goodput = float64(inTime) / d.Seconds()
	return a
}

func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	return fmt.Sprintf("%d: p50 %v p99 %v", len(d), d[len(d)/2].Round(100*time.Microsecond), d[len(d)*99/100].Round(100*time.Microsecond))
}

func gatewayPID(b *testing.B, box *stack.Stack) int {
	b.Helper()
	found, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
	require.NoError(b, err)
	for _, p := range found {
		if p.Program == filepath.Join(box.BinDir, "gateway") {
			return p.PID
		}
	}
	b.Fatal("the gateway's process is not found")
	return 0
}

// rss is the memory of a process in MiB.
func rss(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb >> 10
		}
	}
	return 0
}

// cpuTime is how long the threads of a process have run, and how long they have waited to.
type cpuTime struct {
	ran, waited time.Duration
	slices      int
}

func schedule(pid int) (c cpuTime) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if fields := strings.Fields(string(text)); len(fields) == 3 {
			ran, _ := strconv.ParseInt(fields[0], 10, 64)
			waited, _ := strconv.ParseInt(fields[1], 10, 64)
			c.ran += time.Duration(ran)
			c.waited += time.Duration(waited)
			n, _ := strconv.Atoi(fields[2])
			c.slices += n
		}
	}
	return c
}

func (c cpuTime) since(o cpuTime) string {
	return fmt.Sprintf("ran for %v and waited for a CPU for %v, %d times", (c.ran - o.ran).Round(10*time.Millisecond), (c.waited - o.waited).Round(10*time.Millisecond), c.slices-o.slices)
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return strings.TrimSpace(string(text))
}
