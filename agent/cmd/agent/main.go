// Command agent starts, watches and ends the function containers of one esb box, as its gateway asks.
//
// Usage: agent          serve until SIGTERM or SIGINT; containers live on
//
//	agent purge    remove all that this agent ever made, but images and logs
//	agent check-database FILE...
//	               exit with 0 when databases of containerd are whole, 3 when one is damaged: the agent asks that of a process
//	               of its own, since looking at some damage ends the process
//	agent judge-database FILE...
//	               have another process do that, and exit with 3 when a database is damaged, 1 when it could not be looked at
//	agent absent-images NAME...
//	               print those of the images that no archive in IMAGE_ARCHIVES_DIR has; exit with 3 when an archive cannot be read
//	agent health   exit with 0 when the agent of these settings serves, for container health checks
//
// Its settings are environment variables: docs/settings.md lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/edge-serverless-box/esb/agent/app"
	"github.com/edge-serverless-box/esb/agent/images"
	"github.com/edge-serverless-box/esb/agent/settings"
	"github.com/edge-serverless-box/esb/agent/storedb"
	"github.com/edge-serverless-box/esb/guard/hung"
	"github.com/edge-serverless-box/esb/guard/logfile"
	"github.com/edge-serverless-box/esb/guard/settingnames"
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
	if len(args) > 0 && args[0] == app.CheckDatabase {
		code, said := storedb.Inspect(args[1:])
		if code != 0 {
			fmt.Fprintln(os.Stderr, said)
		}
		os.Exit(code)
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the agent's own folder: %w", err)
	}
	if len(args) > 0 && args[0] == app.JudgeDatabase {
		damage, err := storedb.Judge(ctx, []string{executable, app.CheckDatabase}, args[1:])
		if damage != "" {
			fmt.Fprintln(os.Stderr, damage)
			os.Exit(app.ExitDamaged)
		}
		return err
	}
	s, err := settings.Load(os.Getenv, executable)
	if err != nil {
		return err
	}
	if len(args) > 0 && args[0] == app.AbsentImages {
		absent, err := images.Absent(s.ArchivesDir, s.Registry, args[1:])
		for _, name := range absent {
			_, _ = fmt.Println(name)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(app.UnreadArchive)
		}
		return nil
	}
	log := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: s.LogLevel}))
	switch {
	case len(args) == 0:
		return serve(ctx, s)
	case len(args) == 1 && args[0] == "purge":
		return app.Purge(ctx, s, log)
	case len(args) == 1 && args[0] == "health":
		return app.Health(ctx, s)
	case len(args) == 2 && args[0] == "health" && args[1] == "-end":
		return hung.Container(app.Health(ctx, s))
	}
	return fmt.Errorf("usage: agent [purge|health [-end]], got %q", args)
}

// serve runs the agent with its log in ESB_LOG_DIR, and on standard output when that is something else: `esb up` has it
// lead to the same file.
func serve(ctx context.Context, s settings.Settings) error {
	file, err := logfile.OpenRotating(filepath.Join(s.LogDir, "agent.log"), int64(s.ServiceLogMaxMB)<<20, 0o640, os.Stdout, os.Stderr)
	if err != nil {
		return fmt.Errorf("ESB_LOG_DIR: %w", err)
	}
	var out io.Writer = file
	if !file.Is(os.Stdout) {
		out = io.MultiWriter(os.Stdout, file)
	}
	log := slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: s.LogLevel}))
	for _, text := range settingnames.Strange(os.Environ()) {
		log.Warn(text)
	}
	err = app.Run(ctx, s, log, nil)
	return errors.Join(err, file.Close())
}
