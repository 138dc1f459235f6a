// Package ownthread runs what changes its thread for good: namespaces, capabilities, prctl(2).
package ownthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs fn on a thread that ends afterwards, with all that fn has made of it, and returns what fn returns.
//
// It is never the process's first thread. Go cannot end that one: it would stay as fn left it, and it is the one that
// /proc/self and /proc/net speak of, and whose rights and namespaces the children have that happen to be started on it.
func Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- fn() // never unlocked: the thread ends with the goroutine
			return
		}
		defer runtime.UnlockOSThread()
		// While this goroutine has the first thread, no other one gets it.
		done <- Do(fn)
	}()
	return <-done
}
