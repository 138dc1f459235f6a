// Package dockerrelay offers the stores to functions where Docker runs the stores. Docker publishes them on 127.0.0.1 only,
// so that no other machine reaches them; functions reach the box at its address on the function network. The relay listens
// there, whether the address is there already or not, and lets functions in with keys of their own. It needs the host's
// network.
package dockerrelay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/stores/functionfront"
	"github.com/edge-serverless-box/esb/stores/listen"
	"github.com/edge-serverless-box/esb/stores/relay"
)

// Run serves until ctx ends. When a listener cannot be had, none is.
func Run(ctx context.Context, s Settings, log *slog.Logger) (err error) {
	var closers []func() error
	defer func() {
		for _, c := range closers {
			err = errors.Join(err, c())
		}
	}()
	keys := functionfront.NewKeyFile(s.FunctionKeysFile, log)
	offer := func(setting, addr string, serve func([]net.Listener, func(context.Context) (net.Conn, error)) func() error) error {
		listeners, err := listen.All(ctx, setting, []string{addr})
		if err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(addr)
		closers = append(closers, serve(listeners, func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
		}))
		log.Info("listening", "addr", addr)
		return nil
	}
	front := func(service functionfront.Service, store sigv4.Credentials) func([]net.Listener, func(context.Context) (net.Conn, error)) func() error {
		return func(listeners []net.Listener, dial func(context.Context) (net.Conn, error)) func() error {
			return functionfront.Start(listeners, functionfront.Options{Service: service, Keys: keys.Secret, Store: store, Dial: dial, Logger: log}).Close
		}
	}
	plain := func(listeners []net.Listener, dial func(context.Context) (net.Conn, error)) func() error {
		return relay.Start(listeners, dial, log).Close
	}
	on := func(port int) string { return net.JoinHostPort(s.Box.String(), strconv.Itoa(port)) }
	if err := offer("ESB_RELAY_S3_PORT", on(s.S3Port), front(functionfront.S3, s.S3)); err != nil {
		return err
	}
	if err := offer("ESB_RELAY_DYNAMODB_PORT", on(s.DynamoDBPort), front(functionfront.DynamoDB, s.DynamoDB)); err != nil {
		return err
	}
	for _, port := range s.Ports {
		if err := offer("ESB_RELAY_PORTS", on(port), plain); err != nil {
			return err
		}
	}
	for _, addr := range s.Extra {
		if err := offer("ESB_RELAY_EXTRA", addr, plain); err != nil {
			return err
		}
	}
	log.Info("relay is ready", "box", s.Box.String(), "extra", strings.Join(s.Extra, " "))
	<-ctx.Done()
	return nil
}
