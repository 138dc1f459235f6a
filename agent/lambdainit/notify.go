package lambdainit

import (
	"fmt"
	"net"
	"time"
)

// Datagrams to the agent.
const (
	notifyReady     = "READY=1\n"
	notifyInitStart = "INIT_START=1\n"
	notifyInitOK    = "INIT_END=ok\n"
	notifyInitError = "INIT_END=error\n"
	notifyLogLost   = "LOG_LOST="
)

// notifyLimit bounds a send when the agent does not read its socket: the function matters more than the news.
const notifyLimit = 200 * time.Millisecond

// notifier tells the agent about the life of the container. It connects for every datagram, so that it finds an
// agent that has restarted and bound the path anew.
type notifier struct{ path string }

func (n notifier) send(message string) error {
	if n.path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the agent %q: connect to %s (ESB_INIT_NOTIFY): %w", message, n.path, err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyLimit)); err != nil {
		return fmt.Errorf("tell the agent %q: %w", message, err)
	}
	if _, err := conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("tell the agent %q: write to %s (ESB_INIT_NOTIFY): %w", message, n.path, err)
	}
	return nil
}
