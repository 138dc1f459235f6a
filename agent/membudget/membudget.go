// Package membudget says whether there is memory for one more container. Limits of containers are promises that a small machine
// cannot keep all at once, and that hardly any function takes up: what counts is what containers really hold. A start for which there
// is none is refused; who asked may end containers without work, and ask again. And containers grow after their start: who looks now and
// then is told when they have grown beyond the budget.
package membudget

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/reason"
)

const (
	// StartBytes is what has to be free for a start, or the limit of the container if that is less: more than a runtime takes to
	// begin with.
	StartBytes = 64 << 20
	// settle is how long after its start a container's share stays reserved: its function is only being initialised.
	settle = 2 * time.Second
	// spare is the part of the machine's memory, one in so many, that starts leave to everything else.
	spare = 50
	// What has grown beyond the budget is to come back below it by one part in so many before that is over, and what the machine has
	// left is to be half as much again as its spare part: it would be beyond it again at once.
	ease = 20
)

// Config of a Budget.
type Config struct {
	// Limit is what all containers together may hold, in bytes; 0 is no bound.
	Limit int64
	// Used reads what they hold.
	Used func() (int64, error)
	// Available reads what the whole machine has left, and Machine is what it has.
	Available func() (int64, error)
	Machine   int64
}

// Budget is the memory of all containers. It is safe for concurrent use.
type Budget struct {
	cfg Config

	// mu guards shares, those of containers that start or have just started, by their ids, and what Look found last: over says that
	// containers held more than they may, low that the machine had next to none left.
	mu        sync.Mutex
	shares    map[string]share
	over, low bool
}

// New returns the budget of cfg.
func New(cfg Config) *Budget { return &Budget{cfg: cfg, shares: make(map[string]share)} }

// share is what is reserved for one container.
type share struct {
	bytes int64
	// until is zero while the container starts.
	until time.Time
}

// Reserve finds room for the container id, with so much memory at most. The error has CodeExhausted and reason.NoMemory. A Budget
// without a limit has room for all.
func (b *Budget) Reserve(id string, limit int64) error {
	if b.cfg.Limit <= 0 {
		return nil
	}
	used, available, err := b.read()
	if err != nil {
		return err
	}
	s := share{bytes: min(StartBytes, limit)}
	b.mu.Lock()
	defer b.mu.Unlock()
	reserved, now := int64(0), time.Now()
	for of, o := range b.shares {
		if !o.until.IsZero() && now.After(o.until) {
			delete(b.shares, of)
			continue
		}
		reserved += o.bytes
	}
	switch {
	case used+reserved+s.bytes > b.cfg.Limit:
		return refused("functions hold %d MB and %d MB are reserved for those that start, of the %d MB that they may have (FUNCTION_MEMORY_BUDGET); %d MB are needed",
			used>>20, reserved>>20, b.cfg.Limit>>20, s.bytes>>20)
	case available-reserved-s.bytes < b.cfg.Machine/spare:
		return refused("the machine has %d MB left, and %d MB are reserved for functions that start; %d MB are needed, and %d MB stay free",
			available>>20, reserved>>20, s.bytes>>20, b.cfg.Machine/spare>>20)
	}
	b.shares[id] = s
	return nil
}

func refused(format string, args ...any) error {
	err := agent.Errorf(agent.CodeExhausted, "no memory for another container: "+format, args...)
	err.Reason = reason.NoMemory
	return err
}

// Look says how much containers are to give back: they hold more than they may, or the machine has next to none left. Once that is so it
// stays so until they hold clearly less. A Budget without a limit has no shortage.
func (b *Budget) Look() (agent.Shortage, error) {
	if b.cfg.Limit <= 0 {
		return agent.Shortage{}, nil
	}
	used, available, err := b.read()
	if err != nil {
		return agent.Shortage{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	limit, left := b.cfg.Limit, b.cfg.Machine/spare
	if b.over {
		limit -= limit / ease
	}
	if b.low {
		left += left / 2
	}
	b.over, b.low = used > limit, available < left
	return agent.Shortage{Bytes: max(used-limit, left-available, 0), Machine: b.low}, nil
}

// read returns what containers hold, and what the machine has left.
func (b *Budget) read() (used, available int64, err error) {
	if used, err = b.cfg.Used(); err != nil {
		return 0, 0, err
	}
	available, err = b.cfg.Available()
	return used, available, err
}

// Started keeps the share of a container for as long as its function is initialised; what it holds is seen after that.
func (b *Budget) Started(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.shares[id]; ok {
		s.until = time.Now().Add(settle)
		b.shares[id] = s
	}
}

// Release gives back the share of a container that is gone, or was not started.
func (b *Budget) Release(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.shares, id)
}

// Available reads what the machine has left from a file like /proc/meminfo.
func Available(meminfo string) (int64, error) {
	f, err := os.Open(meminfo)
	if err != nil {
		return 0, fmt.Errorf("read the memory that is left: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), "MemAvailable:")
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the memory that is left: %s: %w", meminfo, err)
		}
		return kb << 10, nil
	}
	return 0, fmt.Errorf("read the memory that is left: %s has no line MemAvailable", meminfo)
}
