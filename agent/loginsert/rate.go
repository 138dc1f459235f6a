package loginsert

import (
	"sync"
	"time"
)

// forgetAfter is how long a container is remembered that posts nothing; its share is whole again long before.
const forgetAfter = time.Minute

// rates are what each container may post at present. A request is let in while there is anything left, and takes what it
// needs: the debt is what the next one waits for. So a request need not be counted before it has been read.
type rates struct {
	bytesPerSecond float64
	now            func() time.Time

	// mu guards what follows.
	mu     sync.Mutex
	of     map[string]*share
	swept  time.Time
	forget time.Duration
}

type share struct {
	bytes, lines float64
	at           time.Time
}

func newRates(bytesPerSecond int) *rates {
	return &rates{bytesPerSecond: float64(bytesPerSecond), now: time.Now, of: map[string]*share{}, forget: forgetAfter}
}

// wait is how long a container has to wait until it may post again, 0 when it may now.
func (r *rates) wait(container string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.refill(container)
	missing := max(-s.bytes/r.bytesPerSecond, -s.lines/linesPerSecond)
	if missing < 0 {
		return 0
	}
	return max(time.Duration(missing*float64(time.Second)), time.Millisecond)
}

// spend takes what a container has posted from its share.
func (r *rates) spend(container string, bytes, lines int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.refill(container)
	s.bytes -= float64(bytes)
	s.lines -= float64(lines)
}

func (r *rates) refill(container string) *share {
	now := r.now()
	if now.Sub(r.swept) > r.forget {
		r.swept = now
		for name, s := range r.of {
			if now.Sub(s.at) > r.forget {
				delete(r.of, name)
			}
		}
	}
	s := r.of[container]
	if s == nil {
		s = &share{bytes: burst * r.bytesPerSecond, lines: burst * linesPerSecond, at: now}
		r.of[container] = s
	}
	passed := now.Sub(s.at).Seconds()
	s.bytes = min(s.bytes+passed*r.bytesPerSecond, burst*r.bytesPerSecond)
	s.lines = min(s.lines+passed*linesPerSecond, burst*linesPerSecond)
	s.at = now
	return s
}
