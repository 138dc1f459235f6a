package lambdainit

import (
	"sync"
	"time"
)

// burstSeconds is how many seconds' worth may be written at once.
const burstSeconds = 2

// pace holds a writer back to a number of bytes a second. It belongs to one goroutine, but for end. Nil never does.
type pace struct {
	rate  float64
	room  float64
	since time.Time
	ended chan struct{}
	once  sync.Once
}

func newPace(rate int) *pace {
	if rate <= 0 {
		return nil
	}
	return &pace{rate: float64(rate), room: burstSeconds * float64(rate), since: time.Now(), ended: make(chan struct{})}
}

// take notes that n bytes were written and returns how long to wait before the next.
func (p *pace) take(n int) time.Duration {
	if p == nil {
		return 0
	}
	now := time.Now()
	p.room = min(p.room+p.rate*now.Sub(p.since).Seconds(), burstSeconds*p.rate) - float64(n)
	p.since = now
	if p.room >= 0 {
		return 0
	}
	return time.Duration(-p.room / p.rate * float64(time.Second))
}

// wait returns after d, or at the end.
func (p *pace) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ended:
	}
}

// end lets a writer go on that is held back.
func (p *pace) end() {
	if p != nil {
		p.once.Do(func() { close(p.ended) })
	}
}
