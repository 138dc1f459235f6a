// Command esb-relay offers the stores to functions where Docker runs the stores: see package dockerrelay, also for its
// settings, which are environment variables.
//
// esb-relay passwords <folder> makes the passwords of the stores there, and ends: see package dockerpasswords.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/edge-serverless-box/esb/stores/dockerpasswords"
	"github.com/edge-serverless-box/esb/stores/dockerrelay"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "esb-relay:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == "passwords" {
		return dockerpasswords.Keep(args[1], os.Getenv)
	}
	if len(args) > 0 {
		return fmt.Errorf("unknown arguments %q: there is only: passwords <folder>", args)
	}
	s, err := dockerrelay.Load(os.Getenv)
	if err != nil {
		return fmt.Errorf("settings:\n%w", err)
	}
	return dockerrelay.Run(ctx, s, slog.New(slog.NewJSONHandler(os.Stdout, nil)))
}
