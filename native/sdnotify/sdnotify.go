// Package sdnotify tells systemd how a service is (sd_notify(3)).
package sdnotify

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// States of a service.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Alive    = "WATCHDOG=1"
)

// Notifier tells the service manager that has started this program. The zero Notifier tells nobody.
type Notifier struct {
	socket string
	// Every is how often Alive is wanted; 0 for never.
	Every time.Duration
}

// FromEnv reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; pid is this process.
func FromEnv(getenv func(string) string, pid int) Notifier {
	n := Notifier{socket: getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if whose := getenv("WATCHDOG_PID"); err == nil && usec > 0 && (whose == "" || whose == strconv.Itoa(pid)) {
		n.Every = time.Duration(usec) * time.Microsecond / 2
	}
	return n
}

// Tell sends a state.
func (n Notifier) Tell(state string) error {
	if n.socket == "" {
		return nil
	}
	// "@" begins the name of a socket that is in no file system, for package net too.
	conn, err := net.Dial("unixgram", n.socket)
	if err != nil {
		return fmt.Errorf("tell the service manager %s: %w", state, err)
	}
	_, err = conn.Write([]byte(state))
	if err := errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("tell the service manager %s: %w", state, err)
	}
	return nil
}

// During does work, and says meanwhile that this program is alive: work that takes longer than the service manager has patience, and is
// bounded by itself.
func (n Notifier) During(work func()) {
	if n.Every <= 0 {
		work()
		return
	}
	done := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		ticker := time.NewTicker(n.Every)
		defer ticker.Stop()
		for {
			_ = n.Tell(Alive)
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	})
	work()
	close(done)
	telling.Wait()
}

// Without returns an environment without the variables of FromEnv: they are not meant for children.
func Without(environ []string) []string {
	var kept []string
	for _, v := range environ {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID":
		default:
			kept = append(kept, v)
		}
	}
	return kept
}
