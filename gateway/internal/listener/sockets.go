package listener

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/edge-serverless-box/esb/guard/listen"
)

// Sockets are bound before the Sets are made that listen on them. A nil one has none.
type Sockets struct {
	free map[string]net.Listener
}

// Bind binds the addresses of a setting, or takes a socket that is there already: given returns nil for none of that name.
func (s *Sockets) Bind(ctx context.Context, setting string, addrs []string, given func(name string) net.Listener) error {
	if s.free == nil {
		s.free = map[string]net.Listener{}
	}
	for _, addr := range addrs {
		name := listen.Name(setting, addr)
		if s.free[name] != nil {
			continue // named twice: whoever adds it says so
		}
		l := given(name)
		if l == nil {
			var err error
			if l, err = listen.One(ctx, setting, addr); err != nil {
				return err
			}
		}
		s.free[name] = l
	}
	return nil
}

// take returns a socket, nil when there is none.
func (s *Sockets) take(setting, addr string) net.Listener {
	if s == nil {
		return nil
	}
	l := s.free[listen.Name(setting, addr)]
	delete(s.free, listen.Name(setting, addr))
	return l
}

// Close closes the sockets that nobody has taken.
func (s *Sockets) Close() error {
	var errs []error
	for name, l := range s.free {
		delete(s.free, name)
		if err := l.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close the socket of %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
