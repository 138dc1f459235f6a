package auth

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/edge-serverless-box/esb/gateway"
)

// How logins that fail are held back. Right ones are never counted.
const (
	// freeGuesses is how often an address may be wrong before it has to wait.
	freeGuesses = 10
	// leastWait doubles with each further failure up to mostWait.
	leastWait = time.Second
	mostWait  = time.Minute
	// forgetAfter an address' last failure it starts anew.
	forgetAfter = 15 * time.Minute
	// allBurst and allRate bound the failures of all addresses together: that many at once, and that many a second. Then
	// only addresses from where somebody has logged in during trustFor may try.
	allBurst = 100
	allRate  = rate.Limit(0.5)
	trustFor = 24 * time.Hour
	// maxAddresses and maxTrusted bound what is remembered.
	maxAddresses = 8192
	maxTrusted   = 1024
)

// guesses remembers from where logins failed. It is safe for concurrent use.
type guesses struct {
	// mu guards all of it, and lets one login be checked at a time: guesses sent side by side count as those sent in turn.
	mu      sync.Mutex
	failed  map[string]*guesser
	trusted map[string]time.Time // until when
	all     *rate.Limiter
}

// guesser is an address.
type guesser struct {
	failures int
	last     time.Time
	// until is when it may try again.
	until time.Time
}

func newGuesses() *guesses {
	return &guesses{failed: make(map[string]*guesser), trusted: make(map[string]time.Time), all: rate.NewLimiter(allRate, allBurst)}
}

// may says whether an address may try now. Its error has CodeRouteThrottled, and says when to come back.
func (g *guesses) may(from string, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mayLocked(from, now)
}

func (g *guesses) mayLocked(from string, now time.Time) error {
	if f := g.failed[from]; f != nil && now.Before(f.until) {
		err := gateway.Errorf(gateway.CodeRouteThrottled, "login: %d logins from %s failed", f.failures, from)
		err.RetryAfter = f.until.Sub(now)
		return err
	}
	if g.all.TokensAt(now) < 1 && !now.Before(g.trusted[from]) {
		err := gateway.Errorf(gateway.CodeRouteThrottled, "login: too many logins failed, from all addresses together")
		err.RetryAfter = time.Duration(float64(time.Second) / float64(allRate))
		return err
	}
	return nil
}

// try runs check for an address that may try, and takes note of what it said.
func (g *guesses) try(from string, now time.Time, check func() bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.mayLocked(from, now); err != nil {
		return err
	}
	if check() {
		delete(g.failed, from)
		g.trust(from, now)
		return nil
	}
	g.all.AllowN(now, 1)
	f := g.failed[from]
	if f == nil || now.Sub(f.last) > forgetAfter {
		g.forget(now)
		f = &guesser{}
		g.failed[from] = f
	}
	f.failures++
	f.last = now
	if more := f.failures - freeGuesses; more >= 0 {
		// Past mostWait the exponent says nothing any more.
		f.until = now.Add(min(leastWait<<min(more, 10), mostWait))
	}
	return nil
}

// forget makes room for one more address.
func (g *guesses) forget(now time.Time) {
	if len(g.failed) < maxAddresses {
		return
	}
	for from, f := range g.failed {
		if now.Sub(f.last) > forgetAfter {
			delete(g.failed, from)
		}
	}
	for from := range g.failed {
		if len(g.failed) < maxAddresses {
			return
		}
		// Any: so many addresses are held back together.
		delete(g.failed, from)
	}
}

func (g *guesses) trust(from string, now time.Time) {
	if _, ok := g.trusted[from]; !ok && len(g.trusted) >= maxTrusted {
		for old := range g.trusted {
			delete(g.trusted, old)
			break
		}
	}
	g.trusted[from] = now.Add(trustFor)
}
