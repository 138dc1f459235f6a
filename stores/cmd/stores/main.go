// Command stores runs the stand-ins for S3, the DynamoDB API, VictoriaLogs and the image registry as child processes.
//
// Usage: stores [run] [s3] [db] [logs] [registry]   serve until SIGTERM or SIGINT; all of them when none is named
//
//	stores health [s3] [db] [logs] [registry]  ask the running ones; exit code 0 when all of them work
//
// Its settings are environment variables: docs/settings.md lists them.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/stores"
	"github.com/edge-serverless-box/esb/stores/app"
	"github.com/edge-serverless-box/esb/stores/confine"
	"github.com/edge-serverless-box/esb/stores/settings"
)

// healthTimeout bounds `stores health`.
const healthTimeout = 5 * time.Second

func main() {
	if confine.Is(os.Args) {
		os.Exit(confine.Run(os.Args))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stores:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	command := "run"
	if len(args) > 0 && (args[0] == "run" || args[0] == "health") {
		command, args = args[0], args[1:]
	}
	which, err := stores.Parse(args)
	if err != nil {
		return fmt.Errorf("%w\nusage: stores [run|health] [store...]", err)
	}
	if len(which) == 0 {
		which = stores.All()
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own folder: %w", err)
	}
	s, err := settings.Load(os.Getenv, executable)
	if err != nil {
		return fmt.Errorf("settings:\n%w", err)
	}
	if command == "health" {
		ctx, cancel := context.WithTimeout(ctx, healthTimeout)
		defer cancel()
		return app.Health(ctx, s, which)
	}
	log := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: s.LogLevel}))
	return app.Run(ctx, s, log, which, nil)
}
