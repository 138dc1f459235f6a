package async

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// pace bounds the bytes a second that the embedded server is given, and shares them fairly between functions: when they
// wait, the one that was let in with the fewest bytes is next (start-time fair queueing). So the small event of a function
// waits for no more than the one event of each other function that is before it.
type pace struct {
	limiter *rate.Limiter

	// mu guards what follows.
	mu sync.Mutex
	// lines are the functions whose events wait.
	lines map[string]*line
	// clock is where the line stood that was served last; stood where functions stood that wait no more. Both are forgotten
	// when nobody waits.
	clock int64
	stood map[string]int64
	timer *time.Timer
}

// line has the turns of one function, the first come first.
type line struct {
	waiting []*turn
	bytes   int // of all that wait
	// stands counts the bytes that went in, from where the others stood when the line began.
	stands int64
}

type turn struct {
	bytes int
	ready chan struct{} // closed when it may go in
}

func newPace(bytesPerSecond rate.Limit, burst int) *pace {
	return &pace{limiter: rate.NewLimiter(bytesPerSecond, burst), lines: map[string]*line{}, stood: map[string]int64{}}
}

// wait returns when n bytes of a function may go in. Its error says that they may not before ctx ends or patience does, or
// that the function has more waiting than goes in within patience; 0 is all the patience.
func (p *pace) wait(ctx context.Context, function string, n int, patience time.Duration) error {
	p.mu.Lock()
	n = min(n, p.limiter.Burst())
	if len(p.lines) == 0 && p.limiter.AllowN(time.Now(), n) {
		p.mu.Unlock()
		return nil
	}
	l := p.lines[function]
	if l == nil {
		l = &line{stands: max(p.clock, p.stood[function])}
		p.lines[function] = l
	}
	if float64(l.bytes+n)-p.limiter.Tokens() > float64(p.limiter.Limit())*patience.Seconds() && patience > 0 {
		p.leave(function, l)
		p.mu.Unlock()
		return fmt.Errorf("the turn would not come within %v", patience)
	}
	t := &turn{bytes: n, ready: make(chan struct{})}
	l.waiting = append(l.waiting, t)
	l.bytes += n
	p.serve()
	p.mu.Unlock()
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(l.waiting, t)
	if i < 0 {
		return nil // let in at the last moment
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	l.bytes -= n
	p.leave(function, l)
	p.serve() // perhaps the others waited for it
	return fmt.Errorf("wait for the turn: %w", ctx.Err())
}

// leave forgets a line in which nobody waits. Callers hold mu.
func (p *pace) leave(function string, l *line) {
	if len(l.waiting) > 0 {
		return
	}
	delete(p.lines, function)
	p.stood[function] = l.stands
	if len(p.lines) == 0 {
		clear(p.stood)
		p.clock = 0
	}
}

// serve lets in whose turn it is and sets the timer for the next. Callers hold mu.
func (p *pace) serve() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	for len(p.lines) > 0 {
		var function string
		var l *line
		for name, other := range p.lines {
			if l == nil || other.stands < l.stands || other.stands == l.stands && name < function {
				function, l = name, other
			}
		}
		t, now := l.waiting[0], time.Now()
		if !p.limiter.AllowN(now, t.bytes) {
			lacking := float64(t.bytes) - p.limiter.TokensAt(now)
			in := time.Duration(lacking / float64(p.limiter.Limit()) * float64(time.Second))
			p.timer = time.AfterFunc(max(in, time.Millisecond), func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.serve()
			})
			return
		}
		close(t.ready)
		p.clock = l.stands
		l.stands += int64(t.bytes)
		l.waiting = l.waiting[1:]
		l.bytes -= t.bytes
		p.leave(function, l)
	}
}
