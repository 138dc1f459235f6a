// Package dockerrelay offers the stores to functions where Docker runs the stores. Docker publishes them on 127.0.0.1 only,
// so that no other machine reaches them; functions reach the box at its address on the function network. The relay listens
// there, whether the address is there already or not, and lets functions in with keys of their own. It needs the host's
// network.
package dockerrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/guard/listen"
	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/stores/dynamofront"
	"github.com/edge-serverless-box/esb/stores/front"
	"github.com/edge-serverless-box/esb/stores/relay"
	"github.com/edge-serverless-box/esb/stores/s3front"
	"github.com/edge-serverless-box/esb/stores/settings"
)

// Run serves until ctx ends. When a listener cannot be had, none is.
func Run(ctx context.Context, s Settings, log *slog.Logger) (err error) {
	var closers []func() error
	defer func() {
		for _, c := range closers {
			err = errors.Join(err, c())
		}
	}()
	held, err := front.Budget(os.Getenv, log)
	if err != nil {
		return err
	}
	callers := front.Callers{
		Secret: front.NewKeyFile(s.FunctionKeysFile, log).Secret, Rights: functionaccess.NewFile(s.FunctionAccessFile, log).Rights,
		WellKnown: setting.StoreSecretKey, Network: s.Subnet, Box: s.Box(),
	}
	offerTo := func(setting, addr string, target int, serve func([]net.Listener, func(context.Context) (net.Conn, error)) func() error) error {
		listeners, err := listen.All(ctx, setting, []string{addr})
		if err != nil {
			return err
		}
		closers = append(closers, serve(listeners, func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(target)))
		}))
		log.Info("listening", "addr", addr)
		return nil
	}
	offer := func(setting, addr string, serve func([]net.Listener, func(context.Context) (net.Conn, error)) func() error) error {
		_, text, _ := net.SplitHostPort(addr)
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return fmt.Errorf("%s: %q has no port: %w", setting, addr, err)
		}
		return offerTo(setting, addr, int(port), serve)
	}
	of := func(store sigv4.Credentials) front.Callers {
		c := callers
		c.Store = store
		return c
	}
	s3 := func(listeners []net.Listener, dial func(context.Context) (net.Conn, error)) func() error {
		return s3front.Start(listeners, s3front.Options{
			Callers: of(s.S3), Dial: dial, Budget: held, Logger: log, Region: s.Region, Domains: settings.Domains(s.S3PublicEndpoint),
		}).Close
	}
	db := func(listeners []net.Listener, dial func(context.Context) (net.Conn, error)) func() error {
		return dynamofront.Start(listeners, dynamofront.Options{
			Callers: of(s.DynamoDB), Dial: dial, Budget: held, Logger: log, Names: dynamofront.Names{Region: s.Region, Account: s.Account},
		}).Close
	}
	plain := func(listeners []net.Listener, dial func(context.Context) (net.Conn, error)) func() error {
		return relay.Start(listeners, dial, log).Close
	}
	// Those whom the machine publishes a port for, and not whoever else is on its network.
	known := func(listeners []net.Listener, dial func(context.Context) (net.Conn, error)) func() error {
		if len(s.ExtraFrom) > 0 {
			for i, l := range listeners {
				listeners[i] = &peers{Listener: l, allowed: s.ExtraFrom}
			}
		}
		return plain(listeners, dial)
	}
	on := func(port int) string { return net.JoinHostPort(s.Box().String(), strconv.Itoa(port)) }
	if err := offer("ESB_RELAY_S3_PORT", on(s.S3Port), s3); err != nil {
		return err
	}
	for _, addr := range s.S3Addrs {
		if err := offerTo("ESB_RELAY_S3_ADDR", addr, s.S3Port, s3); err != nil {
			return err
		}
	}
	if err := offer("ESB_RELAY_DYNAMODB_PORT", on(s.DynamoDBPort), db); err != nil {
		return err
	}
	for _, port := range s.Ports {
		if err := offer("ESB_RELAY_PORTS", on(port), plain); err != nil {
			return err
		}
	}
	for _, addr := range s.Extra {
		if err := offer("ESB_RELAY_EXTRA", addr, known); err != nil {
			return err
		}
	}
	log.Info("relay is ready", "box", s.Box().String(), "extra", strings.Join(s.Extra, " "))
	<-ctx.Done()
	return nil
}

// peers accepts connections from some addresses alone, and closes others.
type peers struct {
	net.Listener
	allowed []netip.Addr
}

// Accept implements net.Listener.
func (p *peers) Accept() (net.Conn, error) {
	for {
		conn, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if from, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil && slices.Contains(p.allowed, from.Addr().Unmap()) {
			return conn, nil
		}
		_ = conn.Close()
	}
}
