package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/bench/machine"
	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
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
	gateway := gatewayPID(b, box)
	generator := traffic.New()
	b.Cleanup(generator.Close)
	stream := func(name, body string, rate float64, function func(n int) string) traffic.Stream {
		return traffic.Stream{Name: name, Rate: rate, Request: func(ctx context.Context, n int) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodPost, box.HTTPURL+"/"+function(n), strings.NewReader(body))
		}}
	}
	crowded := stream("crowd", `{"action":"sleep","ms":20}`, 0, func(n int) string { return fmt.Sprint("f", n%overloaded) })
	quiet := stream("quiet", `{"action":"ok"}`, quietRate, func(int) string { return "quiet" })
	// peak is how many answers a second clients get who wait for each.
	peakOf := func(d time.Duration) float64 {
		ctx, cancel := context.WithTimeout(b.Context(), d)
		defer cancel()
		samples := generator.Closed(ctx, 2*overloaded*workersEach, crowded)
		return float64(len(samples)-len(traffic.Failed(samples))) / d.Seconds()
	}
	// open sends by a schedule, waits for all answers, and returns when it has begun and ended to send, and the most memory that the gateway had.
	open := func(d time.Duration, streams ...traffic.Stream) (from, until time.Time, resident int64) {
		ctx, cancel := context.WithTimeout(b.Context(), d)
		defer cancel()
		from = time.Now()
		var sending sync.WaitGroup
		for _, s := range streams {
			sending.Go(func() { generator.Run(ctx, s) })
		}
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			now, err := machine.Resident(gateway)
			require.NoError(b, err)
			resident = max(resident, now)
			<-ticker.C
		}
		sending.Wait()
		until = time.Now()
		generator.Close()
		return from, until, resident
	}
	b.ResetTimer()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		var burning sync.WaitGroup
		for i := range hogs {
			burning.Go(func() {
				generator.Ask(ctx, stream("hog", "{}", 0, func(int) string { return fmt.Sprint("hog", i) }), 0)
			})
		}
		_ = peakOf(5 * time.Second) // warm
		peak := peakOf(10 * time.Second)
		from, until, _ := open(10*time.Second, quiet)
		alone := generator.Samples("quiet", from, until)
		before, err := machine.Resident(gateway)
		require.NoError(b, err)
		gatewayRan, generatorRan := schedule(gateway), schedule(os.Getpid())
		crowded.Rate = 2 * peak
		from, until, resident := open(30*time.Second, quiet, crowded)
		b.Logf("gateway %s, generator %s", schedule(gateway).since(gatewayRan), schedule(os.Getpid()).since(generatorRan))
		all, beside := generator.Samples("crowd", from, time.Now()), generator.Samples("quiet", from, time.Now())
		inTime, late := 0, 0
		for _, s := range all {
			if s.OK() && s.Answered().Before(until) {
				inTime++
			}
			if s.Late() > lateLimit {
				late++
			}
		}
		goodput := float64(inTime) / until.Sub(from).Seconds()
		b.Logf("peak %.0f/s; twice that: answered %.0f/s (%.0f %%), %d sent late; %s", peak, goodput, 100*goodput/peak, late, traffic.CausesText(traffic.Causes(all)))
		b.Logf("answers p50 %v p99 %v; refusals p50 %v p99 %v", traffic.Quantile(all, 0.5), traffic.Quantile(all, 0.99),
			traffic.QuantileOf(all, http.StatusTooManyRequests, 0.5), traffic.QuantileOf(all, http.StatusTooManyRequests, 0.99))
		b.Logf("quiet alone p50 %v p99 %v, beside p50 %v p99 %v; failed %d, %d", traffic.Quantile(alone, 0.5), traffic.Quantile(alone, 0.99),
			traffic.Quantile(beside, 0.5), traffic.Quantile(beside, 0.99), len(traffic.Failed(alone)), len(traffic.Failed(beside)))
		b.Logf("gateway RSS before %d MiB, at most %d; load %s", before>>20, resident>>20, loadAverage())
		cancel()
		burning.Wait()
	}
}

func gatewayPID(b *testing.B, box *stack.Stack) int {
	b.Helper()
	status, err := box.Status(b.Context())
	require.NoError(b, err)
	require.NotZero(b, status.PIDs()["gateway"])
	return status.PIDs()["gateway"]
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
