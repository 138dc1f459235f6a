// Package console prints the progress of long work, line by line, so that it reads the same on a terminal and in a CI log.
package console

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// beat is how often a step that is still running says so.
const beat = 15 * time.Second

// Console writes progress. Its methods may be called from several goroutines.
type Console struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

// New returns a Console that writes to w.
func New(w io.Writer) *Console { return &Console{w: w} }

// Printf prints one line.
func (c *Console) Printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintf(c.w, format+"\n", args...)
}

// Write implements io.Writer, for whole lines.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.w.Write(p)
}

// Step runs work, and says what it is, every 15 seconds that it still runs, and how long it took.
func (c *Console) Step(what string, work func() error) error {
	c.Printf("==> %s", what)
	start := time.Now()
	done := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		ticker := time.NewTicker(beat)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				c.Printf("    still at it: %s (%s)", what, time.Since(start).Round(time.Second))
			}
		}
	})
	err := work()
	close(done)
	beating.Wait()
	if err != nil {
		c.Printf("    failed after %s", round(time.Since(start)))
		return err
	}
	c.Printf("    done in %s", round(time.Since(start)))
	return nil
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Second)
}
