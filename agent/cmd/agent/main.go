// Command agent starts, watches and ends the function containers of one esb box, as its gateway asks.
//
// Usage: agent          serve until SIGTERM or SIGINT; containers live on
//
//	agent purge    remove all that this agent ever made, but images and logs
//
// Its settings are environment variables: see package settings.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/edge-serverless-box/esb/agent/app"
	"github.com/edge-serverless-box/esb/agent/settings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the agent's own folder: %w", err)
	}
	s, err := settings.Load(os.LookupEnv, executable)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: s.LogLevel}))
	switch {
	case len(args) == 0:
		return app.Run(ctx, s, log, nil)
	case len(args) == 1 && args[0] == "purge":
		return app.Purge(ctx, s, log)
	}
	return fmt.Errorf("usage: agent [purge], got %q", args)
}
