package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

// box is one, with the traffic that it has.
type box struct {
	*stack.Stack
	config *configuration
	gen    *traffic.Generator
	events *events
	// victim is the worker that was hit last, hurt are those that have lost their function's process.
	victim string
	hurt   []string
	// rested is what it owns when it has nothing but the workers that it keeps.
	rested owned
}

// mustBox starts a box with its state in home.
func mustBox(t *testing.T, p plan, home string, small bool) *box {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests start containers: run them as root")
	}
	b := &box{config: &configuration{dir: mustReadable(t), small: small}, events: newEvents(), gen: traffic.New()}
	server := httptest.NewServer(b.events)
	b.config.records = server.URL
	require.NoError(t, b.config.write())
	var err error
	// All clients have one address, and open a connection for each request that waits.
	env := []string{"GATEWAY_MAX_CONNECTIONS=8192", "GATEWAY_MAX_CONNECTIONS_PER_ADDRESS=8192", "ASYNC_RETRY_BASE_SECONDS=1",
		"PARKED_SANDBOXES_MAX=0"} // as many are made ahead at the end as at the beginning
	if p.strict {
		// The default. What else runs on the machine would leave functions nothing with it, so that other tests have another.
		env = append(env, "FUNCTION_CPU_WEIGHT=12")
	}
	b.Stack, err = stack.Prepare(home, stack.Options{Supervised: true, FunctionsConfig: b.config.functions(), RoutingConfig: b.config.routing(), Env: env})
	require.NoError(t, err)
	t.Cleanup(func() {
		b.gen.Close()
		assert.NoError(t, b.Down())
		server.Close()
		if t.Failed() {
			keepLogs(t, b.Stack)
		}
	})
	require.NoError(t, b.Up(t.Context()))
	// Each image has been used once: what there is of it stays.
	b.mustServe(t)
	b.mustRest(t)
	// Nor is anything on its way that is made ahead: containers that are nobody's yet come one after the other.
	var since time.Time
	stack.Eventually(t, func() bool {
		now, err := readOwned(b.Stack)
		if err != nil || !maps.Equal(now, b.rested) {
			b.rested, since = now, time.Now()
		}
		return time.Since(since) > restFor
	}, "the box must own the same for %s", restFor)
	return b
}

// mustReadable is a folder that the gateway's user can read.
func mustReadable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for at := dir; at != "/"; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err == nil && info.Mode().Perm()&0o005 != 0o005 {
			require.NoError(t, os.Chmod(at, info.Mode().Perm()|0o005))
		}
	}
	return dir
}

// keepLogs saves the logs of a box whose test has failed.
func keepLogs(t *testing.T, s *stack.Stack) {
	t.Helper()
	root, err := stack.RepositoryRoot()
	if err == nil {
		kept := filepath.Join(root, ".esb", "chaos-logs", filepath.Base(s.Bridge))
		if err = os.CopyFS(kept, os.DirFS(filepath.Join(s.Home, "logs"))); err == nil {
			t.Log("the logs of the box are kept in ", kept)
		}
	}
	if err != nil {
		t.Log("keep the logs:", err)
	}
}

// post makes requests to a function.
func (b *box) post(name func(n int) string, body string) func(context.Context, int) (*http.Request, error) {
	return func(ctx context.Context, n int) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.HTTPURL+"/"+name(n), strings.NewReader(body))
		if err == nil {
			r.Header.Set("Content-Type", "application/json")
		}
		return r, err
	}
}

func always(name string) func(int) string { return func(int) string { return name } }

const (
	okBody   = `{"action":"ok"}`
	echoBody = `{"message":"x"}`
)

// The streams.
func (b *box) warmStream(rate float64) traffic.Stream {
	n, _ := b.config.warm()
	return traffic.Stream{Name: "warm", Rate: rate, Request: b.post(func(i int) string { return warmName(i % n) }, okBody)}
}

func (b *box) coldStream(rate float64) traffic.Stream {
	return traffic.Stream{Name: "cold", Rate: rate, Request: b.post(coldName, echoBody), Said: instance}
}

func (b *box) probeStream() traffic.Stream {
	return traffic.Stream{Name: "probe", Request: b.post(probeName, echoBody)}
}

func (b *box) quietStream() traffic.Stream {
	return traffic.Stream{Name: "quiet", Rate: 20, Request: b.post(always("quiet"), okBody)}
}

// instance is who has answered.
func instance(_ http.Header, body []byte) string {
	var answer struct{ Instance string }
	_ = json.Unmarshal(body, &answer) // a refusal has none
	return answer.Instance
}

func (b *box) eventStream(rate float64) traffic.Stream {
	return traffic.Stream{Name: "event", Rate: rate, Said: func(h http.Header, _ []byte) string { return h.Get("X-Amzn-RequestId") },
		Request: func(ctx context.Context, n int) (*http.Request, error) {
			return b.EventRequest(ctx, "runner", fmt.Appendf(nil, `{"n":%d,"body":"{\"action\":\"ok\"}"}`, n))
		}}
}

// send sends streams until the returned function is called.
func (b *box) send(t *testing.T, streams ...traffic.Stream) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, s := range streams {
		wg.Go(func() { b.gen.Run(ctx, s) })
	}
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// mustSend waits until so many requests of a stream were sent since a time, and these have ended.
func (b *box) mustSend(t *testing.T, stream string, since time.Time, n int) {
	t.Helper()
	stack.Eventually(t, func() bool { return len(b.gen.Samples(stream, since, time.Now())) >= n }, "%d %s requests must be sent", n, stream)
}

// mustSettle waits until all that was sent before now has ended.
func (b *box) mustSettle(t *testing.T) time.Time {
	t.Helper()
	now := time.Now()
	stack.Eventually(t, func() bool { return b.gen.Settled(now) }, "what was sent must end")
	return now
}

// pool is what the admin listener says of one.
type pool struct {
	Function                                 string
	Idle, Busy, Starting, Stopping, Outdated int
	Workers                                  []worker
}

type worker struct {
	ID, State string
	Since     time.Time
}

var errNoAnswer = errors.New("the admin listener has no answer")

func (b *box) pools(ctx context.Context) ([]pool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := b.Do(ctx, http.MethodGet, b.AdminURL+"/pools", "", nil)
	if err != nil {
		return nil, err
	}
	var list struct{ Pools []pool }
	if answer.Status != http.StatusOK || json.Unmarshal(answer.Body, &list) != nil {
		return nil, errNoAnswer
	}
	return list.Pools, nil
}

// warmIDs are the workers of the stream warm.
func (b *box) warmIDs(ctx context.Context) ([]string, error) {
	pools, err := b.pools(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, p := range pools {
		if strings.HasPrefix(p.Function, "warm") {
			for _, w := range p.Workers {
				if w.State == "idle" || w.State == "busy" {
					ids = append(ids, w.ID)
				}
			}
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// mustWarm waits until all workers of the stream warm are there, and returns them.
func (b *box) mustWarm(t *testing.T) (ids []string) {
	t.Helper()
	_, want := b.config.warm()
	stack.Eventually(t, func() bool {
		var err error
		ids, err = b.warmIDs(t.Context())
		return err == nil && len(ids) == want
	}, "there must be %d warm workers", want)
	return ids
}

// rests is true when each function has the workers that it keeps, and no other container is there.
func (b *box) rests(ctx context.Context) bool {
	pools, err := b.pools(ctx)
	if err != nil {
		return false
	}
	kept := b.config.kept()
	for _, p := range pools {
		if p.Idle != kept[p.Function] || p.Busy+p.Starting+p.Stopping+p.Outdated > 0 {
			return false
		}
	}
	return len(pools) >= len(kept)
}

// mustRest waits for it.
func (b *box) mustRest(t *testing.T) {
	t.Helper()
	stack.Eventually(t, func() bool { return b.rests(t.Context()) }, "the box must come to rest")
}

// mustBeWell waits until all services serve.
func (b *box) mustBeWell(t *testing.T) {
	t.Helper()
	stack.Eventually(t, func() bool {
		s, err := b.Status(t.Context())
		return err == nil && s.State == "healthy"
	}, "the box must be healthy")
}

// restFor is longer than the making of a container takes.
const restFor = 3 * time.Second

// mustServe waits until functions of all kinds answer.
func (b *box) mustServe(t *testing.T) {
	t.Helper()
	names := []string{"warm0", "probe0"}
	if !b.config.small {
		names = append(names, "hoarder") // from then on its runtime is started ahead
	}
	for _, name := range names {
		body := okBody
		if name == "probe0" {
			body = echoBody
		}
		s := traffic.Stream{Name: "first", Request: b.post(always(name), body)}
		stack.Eventually(t, func() bool { return b.gen.Ask(t.Context(), s, 0).OK() }, "%s must answer", name)
	}
}

// checkLeaks waits until the box owns what it did at rest, and counts what it has more.
func (b *box) checkLeaks(t *testing.T, p *part) {
	t.Helper()
	b.mustRest(t)
	var text string
	var more int
	same := assert.Eventually(quietly{}, func() bool {
		now, err := readOwned(b.Stack)
		if err != nil {
			text = err.Error()
			return false
		}
		text, more = now.more(b.rested)
		return more == 0
	}, leakLimit, 200*time.Millisecond)
	if !same {
		p.leak(more)
	}
	p.hold(t, same, "it owns more than at rest: %s", text)
}

// leakLimit bounds the wait for what is removed behind a request: containers of a gateway before, and what containerd collects.
const leakLimit = 2 * time.Minute

// quietly takes what an assertion says to nobody.
type quietly struct{}

func (quietly) Errorf(string, ...any) {}

// pids are the box's processes of a program.
func (b *box) pids(t *testing.T, program string) []int {
	t.Helper()
	found, err := hoststate.Processes(b.Home, b.BinDir, b.Bridge)
	require.NoError(t, err)
	var pids []int
	for _, p := range found {
		if filepath.Base(p.Program) == program {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// events takes the records of events that have run.
type events struct {
	// mu guards the rest.
	mu sync.Mutex
	// ran is how often each has, by request id, gaveUp how often each was tried that has failed for good.
	ran, gaveUp map[string]int
	// ticked is when those of a schedule have.
	ticked map[string][]time.Time
}

func newEvents() *events {
	return &events{ran: map[string]int{}, gaveUp: map[string]int{}, ticked: map[string][]time.Time{}}
}

// ServeHTTP is the destination of functions that are invoked by events.
func (e *events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var got record
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if got.RequestContext.Condition != "Success" {
		e.gaveUp[got.RequestContext.RequestID] = got.RequestContext.ApproximateInvokeCount
		return
	}
	e.ran[got.RequestContext.RequestID]++
	if schedule := got.tick(); schedule != "" {
		e.ticked[schedule] = append(e.ticked[schedule], time.Now())
	}
}

// missing are accepted events that have not run, twice is how many have more than once.
func (e *events) missing(samples []traffic.Sample) (missing []string, twice int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range samples {
		switch {
		case s.Status != http.StatusAccepted:
		case e.ran[s.Said] == 0:
			missing = append(missing, s.Said)
		case e.ran[s.Said] > 1:
			twice++
		}
	}
	return missing, twice
}

// eventLimit bounds the wait for accepted events: one that met a box without an agent waits up to minutes.
const eventLimit = 6 * time.Minute

// checkEvents waits until all events that were accepted since a time have run.
func (b *box) checkEvents(t *testing.T, p *part, since time.Time) {
	t.Helper()
	sent := b.gen.Samples("event", since, b.mustSettle(t))
	accepted := len(sent) - len(traffic.Failed(sent))
	began := time.Now()
	all := assert.Eventually(quietly{}, func() bool {
		missing, _ := b.events.missing(sent)
		return len(missing) == 0
	}, eventLimit, 100*time.Millisecond)
	missing, twice := b.events.missing(sent)
	p.miss(len(missing))
	p.hold(t, all, "of %d accepted events %d have not run: %v", accepted, len(missing), missing[:min(len(missing), 5)])
	p.measure("%d accepted events ran, %d of them twice, the last %s later", accepted-len(missing), twice, short(time.Since(began)))
}
