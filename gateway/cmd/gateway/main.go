// Command gateway is the front door of the edge serverless box: HTTP in, Lambda events to function containers, HTTP
// out. Its settings are environment variables; package settings documents them.
//
// Usage: gateway              serve until SIGTERM or SIGINT
//
//	gateway health       exit with 0 when the gateway of these settings is ready, for container health checks
//	gateway admin [METHOD] PATH
//	                     ask the admin listener as the operator, and print the answer
//	gateway check        read settings and configuration files, and say what is wrong with them; nothing is started
//	gateway credentials  print the secrets that the box has made for itself, for whoever sets it up
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/edge-serverless-box/esb/gateway/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "gateway: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 0:
		return app.Run(ctx, os.Getenv, os.Stdout)
	case len(args) == 1 && args[0] == "health":
		return app.Health(ctx, os.Getenv)
	case (len(args) == 2 || len(args) == 3) && args[0] == "admin":
		method := http.MethodGet
		if len(args) == 3 {
			method = args[1]
		}
		return app.Admin(ctx, os.Getenv, method, args[len(args)-1], os.Stdout)
	case len(args) == 1 && args[0] == "check":
		return app.Check(os.Getenv, os.Stdout)
	case len(args) == 1 && args[0] == "credentials":
		return app.Credentials(os.Getenv, os.Stdout)
	}
	return fmt.Errorf("usage: gateway [health | check | admin [METHOD] PATH | credentials], got %q", args)
}
