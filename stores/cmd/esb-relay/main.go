// Command esb-relay offers the stores to functions where Docker runs the stores: see package dockerrelay, also for its
// settings, which are environment variables.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/edge-serverless-box/esb/stores/dockerrelay"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "esb-relay:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	s, err := dockerrelay.Load(os.Getenv)
	if err != nil {
		return fmt.Errorf("settings:\n%w", err)
	}
	return dockerrelay.Run(ctx, s, slog.New(slog.NewJSONHandler(os.Stdout, nil)))
}
