// Command gateway is the front door of the edge serverless box: HTTP in, Lambda events to function containers, HTTP
// out. Its settings are environment variables; docs/settings.md lists them.
//
// Usage: gateway                serve until SIGTERM or SIGINT
//
//	gateway health [-end]  exit with 0 when the gateway of these settings is ready, for container health checks; -end kills one
//	                       that has not answered for a minute
//	gateway COMMAND        what an operator asks a running gateway: see gateway help
//
// The program is called esb in the gateway's image too: docker compose exec gateway esb status.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/edge-serverless-box/esb/gateway/app"
	"github.com/edge-serverless-box/esb/guard/hung"
	"github.com/edge-serverless-box/esb/guard/timeslice"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	name := filepath.Base(os.Args[0])
	code, err := run(ctx, name, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	os.Exit(code)
}

func run(ctx context.Context, name string, args []string) (int, error) {
	switch {
	case len(args) == 0 && name != "esb":
		// Where it is forbidden, requests wait until other processes have had their turns.
		_ = timeslice.Shorten(timeslice.Short)
		return outcome(app.Run(ctx, os.Getenv, os.Stdout))
	case len(args) == 1 && args[0] == "health":
		return outcome(app.Health(ctx, os.Getenv))
	case len(args) == 2 && args[0] == "health" && args[1] == "-end":
		return outcome(hung.Container(app.Health(ctx, os.Getenv)))
	}
	return app.Operate(ctx, os.Getenv, name, args, os.Stdout)
}

func outcome(err error) (int, error) {
	if err != nil {
		return 1, err
	}
	return 0, nil
}
