// Package logshare bounds how much of the log store one function takes in a day, so that one that writes without end leaves
// room for the lines of the others.
package logshare

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Shares are what functions have taken today (UTC). It is safe for concurrent use. A nil *Shares has no bound.
type Shares struct {
	limit int64
	log   *slog.Logger
	now   func() time.Time

	// refused counts lines since New.
	refused atomic.Int64

	// mu guards what follows.
	mu  sync.Mutex
	day string
	of  map[string]*share
}

type share struct{ bytes, refused int64 }

// New returns shares of limit bytes a day for each function; nil, which has no bound, when limit is 0.
func New(limit int64, log *slog.Logger) *Shares {
	if limit <= 0 {
		return nil
	}
	return &Shares{limit: limit, log: log, now: time.Now, of: map[string]*share{}}
}

// Take takes bytes for lines from a function's share, or none and false when they are more than is left of it. The first
// refusal of a day is logged, and the sum when the day is over.
func (s *Shares) Take(function string, bytes int64, lines int) bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if day := s.now().UTC().Format(time.DateOnly); day != s.day {
		s.settle()
		s.day = day
	}
	one := s.of[function]
	if one == nil {
		one = &share{}
		s.of[function] = one
	}
	if one.bytes+bytes > s.limit {
		if one.refused == 0 {
			s.log.Warn("a function has used up its share of the log store: its lines of today do not reach it any more (FUNCTION_LOG_DAY_MB)",
				"function", function, "bytes", one.bytes)
		}
		one.refused += int64(lines)
		s.refused.Add(int64(lines))
		return false
	}
	one.bytes += bytes
	return true
}

// Refused is how many lines were refused since New.
func (s *Shares) Refused() int64 {
	if s == nil {
		return 0
	}
	return s.refused.Load()
}

// settle ends a day.
func (s *Shares) settle() {
	for function, one := range s.of {
		if one.refused > 0 {
			s.log.Warn("lines of a function did not reach the log store: it had used up its share of the day (FUNCTION_LOG_DAY_MB)",
				"function", function, "lines", one.refused, "day", s.day)
		}
	}
	clear(s.of)
}
