// Package traffic asks a box as clients do who do not know of each other: by a schedule, whatever becomes of what was sent before
// (an open loop), or as clients that wait for each answer (a closed loop). It keeps what came of each request. It is for boxes on this
// machine's own addresses.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// answerLimit bounds the wait for one answer.
	answerLimit = 60 * time.Second
	// dialLimit bounds a connect.
	dialLimit = 10 * time.Second
	// idleLimit is shorter than that of any server here, so that no request meets a connection that is just being closed.
	idleLimit = 4 * time.Second
	// maxInFlight bounds the requests without an answer of one Generator.
	maxInFlight = 6000
	// backOff is how long a client of Closed that was refused waits: about what SDKs of AWS begin with, on average.
	backOff = 50 * time.Millisecond
	// maxBody bounds what is read of an answer.
	maxBody = 1 << 20
)

// Stream is a kind of request, and how often it comes.
type Stream struct {
	Name string
	// Rate is how many are sent a second.
	Rate float64
	// Request makes the nth.
	Request func(ctx context.Context, n int) (*http.Request, error)
	// Texts are requests that were written beforehand (Write), for Addr; the nth is the nth of them, again and again, and Request is not
	// asked. A client then costs a tenth of net/http's, which matters where it takes the CPU from what is measured.
	Texts [][]byte
	Addr  string
	// Said is what is kept of an answer; nil for nothing. It gets no header of a stream with Texts.
	Said func(header http.Header, body []byte) string
}

// Sample is one request and what came of it.
type Sample struct {
	Stream string
	N      int
	// Due is when it was to be sent by the schedule of Run; zero for one without.
	Due  time.Time
	Sent time.Time
	Took time.Duration
	// Status is that of the answer; 0 when Err says why there is none.
	Status int
	Err    error
	Said   string
}

// OK is true for one that was answered as it should.
func (s Sample) OK() bool { return s.Err == nil && s.Status >= 200 && s.Status < 300 }

// Answered is when the answer came.
func (s Sample) Answered() time.Time { return s.Sent.Add(s.Took) }

// Late is by how much it was sent after it was due: a generator that stalls does not stop the clients that it plays.
func (s Sample) Late() time.Duration {
	if s.Due.IsZero() {
		return 0
	}
	return max(s.Sent.Sub(s.Due), 0)
}

// Latency is how long the client has waited that was to send it when it was due.
func (s Sample) Latency() time.Duration { return s.Late() + s.Took }

// ErrNotSent is of a request that was not sent because too many had no answer yet.
var ErrNotSent = errors.New("too many requests are without an answer")

// Cause says in a word or two what came of it.
func (s Sample) Cause() string {
	var timeout net.Error
	switch {
	case s.Err == nil:
		return strconv.Itoa(s.Status)
	case errors.Is(s.Err, ErrNotSent):
		return "not sent"
	case errors.Is(s.Err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(s.Err, syscall.ECONNRESET), errors.Is(s.Err, syscall.EPIPE):
		return "reset"
	case errors.Is(s.Err, io.EOF), errors.Is(s.Err, io.ErrUnexpectedEOF), strings.Contains(s.Err.Error(), "server closed"):
		return "cut off"
	case errors.As(s.Err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return s.Err.Error()
}

// Generator sends requests.
type Generator struct {
	client *http.Client
	lines  lines
	flying atomic.Int64
	asked  sync.WaitGroup
	// mu guards samples, those that have ended, and open, the times at which the others were sent.
	mu      sync.Mutex
	samples []Sample
	open    map[*Sample]bool
}

// New makes a Generator. Close it.
func New() *Generator {
	return &Generator{open: map[*Sample]bool{}, client: &http.Client{Timeout: answerLimit, Transport: &http.Transport{
		DialContext: dialOwn, MaxIdleConnsPerHost: maxInFlight, MaxIdleConns: maxInFlight, IdleConnTimeout: idleLimit,
	}}}
}

// dialOwn connects to this machine's loopback alone: nobody else gets what a test sends without asking.
func dialOwn(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	if !to.Addr().IsLoopback() {
		return nil, fmt.Errorf("connect to %s: it is not this machine's loopback", addr)
	}
	return (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, network, addr)
}

// Close waits for the answers to what was sent.
func (g *Generator) Close() {
	g.asked.Wait()
	g.client.CloseIdleConnections()
	g.lines.close(0)
}

// Run sends a stream until ctx ends. It does not wait for the answers.
func (g *Generator) Run(ctx context.Context, s Stream) {
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for n := 0; ; n++ {
		// By the schedule: one that could not be kept for a while is caught up on.
		due := began.Add(time.Duration(float64(n) / s.Rate * float64(time.Second)))
		if pause := time.Until(due); pause > 0 {
			timer.Reset(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		g.asked.Go(func() { g.keep(context.WithoutCancel(ctx), s, Sample{Stream: s.Name, N: n, Due: due}) })
	}
}

// Ask sends the nth request of a stream and waits for its answer.
func (g *Generator) Ask(ctx context.Context, s Stream, n int) Sample {
	return g.keep(ctx, s, Sample{Stream: s.Name, N: n})
}

// keep sends a request, waits for its answer, and keeps what came of it.
func (g *Generator) keep(ctx context.Context, s Stream, sample Sample) Sample {
	sample.Sent = time.Now()
	g.mu.Lock()
	g.open[&sample] = true
	g.mu.Unlock()
	g.ask(ctx, s, &sample)
	sample.Took = time.Since(sample.Sent)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, &sample)
	g.samples = append(g.samples, sample)
	return sample
}

func (g *Generator) ask(ctx context.Context, s Stream, sample *Sample) {
	if g.flying.Add(1) > maxInFlight {
		g.flying.Add(-1)
		sample.Err = ErrNotSent
		return
	}
	defer g.flying.Add(-1)
	if s.Texts != nil {
		g.askLine(ctx, s, sample)
		return
	}
	r, err := s.Request(ctx, sample.N)
	if err != nil {
		sample.Err = err
		return
	}
	answer, err := g.client.Do(r)
	if err != nil {
		sample.Err = err
		return
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		sample.Err = err
		return
	}
	sample.Status = answer.StatusCode
	if s.Said != nil {
		sample.Said = s.Said(answer.Header, body)
	}
}

// Closed has so many clients ask one after the other until ctx ends, and returns what came of it. It is not kept. Who is refused does not
// ask again at once, as the clients of AWS do not.
func (g *Generator) Closed(ctx context.Context, clients int, s Stream) []Sample {
	var mu sync.Mutex
	var all []Sample
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for n := c; ctx.Err() == nil; n += clients {
				sample := Sample{Stream: s.Name, N: n, Sent: time.Now()}
				g.ask(context.WithoutCancel(ctx), s, &sample)
				sample.Took = time.Since(sample.Sent)
				mu.Lock()
				all = append(all, sample)
				mu.Unlock()
				if sample.Status == http.StatusTooManyRequests {
					select {
					case <-time.After(backOff):
					case <-ctx.Done():
					}
				}
			}
		})
	}
	wg.Wait()
	return all
}

// Settled is true when all that was sent before a time has ended.
func (g *Generator) Settled(before time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.open {
		if s.Sent.Before(before) {
			return false
		}
	}
	return true
}

// Samples are those of a stream that were sent in [from, to) and have ended; of all streams when there is no name.
func (g *Generator) Samples(stream string, from, to time.Time) []Sample {
	g.mu.Lock()
	defer g.mu.Unlock()
	var found []Sample
	for _, s := range g.samples {
		if (stream == "" || s.Stream == stream) && !s.Sent.Before(from) && s.Sent.Before(to) {
			found = append(found, s)
		}
	}
	return found
}

// Failed are those that were not answered as they should.
func Failed(samples []Sample) []Sample {
	return slices.DeleteFunc(slices.Clone(samples), Sample.OK)
}

// Causes counts what came of them.
func Causes(samples []Sample) map[string]int {
	causes := map[string]int{}
	for _, s := range samples {
		causes[s.Cause()]++
	}
	return causes
}

// CausesText is Causes in a line, the most frequent first.
func CausesText(causes map[string]int) string {
	names := slices.SortedFunc(maps.Keys(causes), func(a, b string) int {
		if causes[a] != causes[b] {
			return causes[b] - causes[a]
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d x %s", causes[name], name)
	}
	return strings.Join(names, ", ")
}

// Quantile of how long answers took, those that were as they should be alone; 0 without any.
func Quantile(samples []Sample, q float64) time.Duration {
	var took []time.Duration
	for _, s := range samples {
		if s.OK() {
			took = append(took, s.Took)
		}
	}
	return quantile(took, q)
}

// QuantileOf is Quantile of those with a status.
func QuantileOf(samples []Sample, status int, q float64) time.Duration {
	var took []time.Duration
	for _, s := range samples {
		if s.Err == nil && s.Status == status {
			took = append(took, s.Took)
		}
	}
	return quantile(took, q)
}

func quantile(took []time.Duration, q float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)]
}
