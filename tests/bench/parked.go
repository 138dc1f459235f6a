package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// parking is how many sandboxes the box keeps that are nobody's yet.
var parking = 2 * runtime.NumCPU()

// park is the setting that says so.
func park(n int) string { return fmt.Sprintf("PARKED_SANDBOXES=%d", n) }

// parked counts the sandboxes of the box that wait for a function: their lambda-init still has the root in which it was made.
func (b *box) parked() (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	for _, file := range files {
		command, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(command, []byte("lambda-init\x00-park\x00")) {
			continue // another program, or one that has ended
		}
		process := filepath.Dir(file)
		group, _ := os.ReadFile(filepath.Join(process, "cgroup"))
		if _, err := os.Stat(filepath.Join(process, "root", "newroot")); err == nil && strings.Contains(string(group), b.Bridge) {
			n++
		}
	}
	return n
}

// startedAhead counts the runtimes of the box that wait for a function: their environment has the room for that function's.
func (b *box) startedAhead() (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is right
	for _, file := range files {
		environment, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(environment, []byte("_ESB_ROOM= ")) {
			continue
		}
		if group, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup")); strings.Contains(string(group), b.Bridge) {
			n++
		}
	}
	return n
}

// awaitParked waits until there are as many as the box is to keep, and as many runtimes, for at most limit: it may have given that up.
func (b *box) awaitParked(ctx context.Context, wanted, runtimes int, limit time.Duration) error {
	for began := time.Now(); (b.parked() < wanted || b.startedAhead() < runtimes) && time.Since(began) < limit; {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
