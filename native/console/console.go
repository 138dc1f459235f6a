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
	mu sync.Mutex // guards what follows
	w  io.Writer
	// open counts the steps that run, mixed is true from when there are two until there is none: they say which of them has ended.
	open  int
	mixed bool
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
	return c.Long(what, func(time.Duration) string { return "" }, work)
}

// Long is Step for what may take minutes: each time it says that work still runs it says, too, what left returns, who is told for how long
// it has run.
func (c *Console) Long(what string, left func(elapsed time.Duration) string, work func() error) error {
	c.Printf("==> %s", what)
	c.began()
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
				elapsed := time.Since(start)
				text := left(elapsed)
				if text != "" {
					text = ", " + text
				}
				c.Printf("    still at it: %s (%s%s)", what, elapsed.Round(time.Second), text)
			}
		}
	})
	err := work()
	close(done)
	beating.Wait()
	which := ""
	if c.ended() {
		which = ": " + what
	}
	if err != nil {
		c.Printf("    failed after %s%s", round(time.Since(start)), which)
		return err
	}
	c.Printf("    done in %s%s", round(time.Since(start)), which)
	return nil
}

func (c *Console) began() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
	c.mixed = c.mixed || c.open > 1
}

// ended returns whether the step that ends has to say which it was.
func (c *Console) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	mixed := c.mixed
	c.open--
	c.mixed = mixed && c.open > 0
	return mixed
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Second)
}
