package traffic

import (
	"context"
	"sync"
	"time"
)

// lines are connections to one address that wait for the next request.
type lines struct {
	mu   sync.Mutex
	idle []idleLine
}

type idleLine struct {
	line  *Line
	since time.Time
}

// take returns the line that was used last, or a new one.
func (l *lines) take(ctx context.Context, addr string) (*Line, error) {
	l.mu.Lock()
	n := len(l.idle) - 1
	if n >= 0 && time.Since(l.idle[n].since) < idleLimit {
		line := l.idle[n].line
		l.idle = l.idle[:n]
		l.mu.Unlock()
		return line, nil
	}
	l.mu.Unlock()
	l.close(idleLimit)
	return Open(ctx, dialOwn, addr)
}

func (l *lines) put(line *Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = append(l.idle, idleLine{line, time.Now()})
}

// close ends those that have waited for so long.
func (l *lines) close(least time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.idle[:0]
	for _, i := range l.idle {
		if time.Since(i.since) >= least {
			_ = i.line.Close()
		} else {
			kept = append(kept, i)
		}
	}
	l.idle = kept
}

// askLine is ask for a stream whose requests are written already.
func (g *Generator) askLine(ctx context.Context, s Stream, sample *Sample) {
	line, err := g.lines.take(ctx, s.Addr)
	if err != nil {
		sample.Err = err
		return
	}
	status, body, err := line.Ask(s.Texts[sample.N%len(s.Texts)])
	if err != nil {
		_ = line.Close()
		sample.Err = err
		return
	}
	sample.Status = status
	if s.Said != nil {
		sample.Said = s.Said(nil, body)
	}
	if line.last {
		_ = line.Close()
		return
	}
	g.lines.put(line)
}
