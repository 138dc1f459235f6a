package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/edge-serverless-box/esb/guard/hung"
)

// Exit codes of Operate; those of status are the ones that the LSB gives to init scripts, as `esb status` of the native way
// has them.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 2
	exitDown      = 3
	exitUnhealthy = 4
)

// questions are commands that print what the admin listener answers.
var questions = []struct{ name, method, path, what string }{
	{"ready", http.MethodGet, "/readyz", "what the box depends on, and what is wrong with it"},
	{"pools", http.MethodGet, "/pools", "the workers of all functions"},
	{"configuration", http.MethodGet, "/configuration", "whether the files are served as they are"},
	{"schedules", http.MethodGet, "/schedules", "when schedules have run and run next"},
	{"async", http.MethodGet, "/async", "the queue of events, and dead letters"},
	{"containers", http.MethodGet, "/metrics/containers", "memory, CPU time and out-of-memory kills of containers"},
	{"metrics", http.MethodGet, "/metrics", "for Prometheus"},
	{"reload", http.MethodPost, "/reload", "read the files again now"},
}

func usage(name string) string {
	var b strings.Builder
	row := func(command, what string) { _, _ = fmt.Fprintf(&b, "  %s %-20s %s\n", name, command, what) }
	b.WriteString("What an operator asks the gateway that runs here:\n\n")
	row("status", "state and functions; exit code 0 healthy, 3 down, 4 not healthy")
	row("functions", "the functions alone")
	for _, q := range questions {
		row(q.name, q.what)
	}
	row("admin [METHOD] PATH", "anything else of the admin listener (docs/operations.md)")
	row("check", "read settings and files, and say what is wrong with them: "+CheckAsReload+" what a reload refuses, "+CheckJSON)
	row("credentials", "the secrets that the box has made for itself")
	return b.String()
}

// Operate runs a command of an operator beside a running gateway, where nothing of the box is but this program: in the
// gateway's image. name is what the program is called. It returns the exit code.
func Operate(ctx context.Context, getenv func(string) string, name string, args []string, out io.Writer) (int, error) {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch {
	case len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, command):
		_, err := io.WriteString(out, usage(name))
		return exitUsage, err
	case command == "admin" && (len(args) == 2 || len(args) == 3):
		method := http.MethodGet
		if len(args) == 3 {
			method = args[1]
		}
		return failed(Admin(ctx, getenv, method, args[len(args)-1], out))
	case command == "check" && !slices.ContainsFunc(args[1:], func(o string) bool { return o != CheckAsReload && o != CheckJSON }):
		return failed(check(ctx, getenv, args[1:], out))
	case len(args) > 1:
	case command == "status" || command == "functions":
		return status(ctx, getenv, command == "status", out)
	case command == "credentials":
		return failed(Credentials(getenv, out))
	default:
		for _, q := range questions {
			if q.name == command {
				return failed(Admin(ctx, getenv, q.method, q.path, out))
			}
		}
	}
	return exitUsage, fmt.Errorf("there is no command %q\n\n%s", strings.Join(args, " "), usage(name))
}

func failed(err error) (int, error) {
	if err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

// status prints the state of the box and its functions, or the functions alone.
func status(ctx context.Context, getenv func(string) string, whole bool, out io.Writer) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	var ready struct {
		Status       string
		Dependencies map[string]struct {
			Status, Error string
			Notes         []string
		}
	}
	var answer struct {
		Pools []struct {
			Function                      string
			Idle, Busy, Starting, Waiting int
			Error                         string
		}
	}
	for path, into := range map[string]any{"/readyz": &ready, "/pools": &answer} {
		if err := read(ctx, getenv, path, into); err != nil {
			if errors.Is(err, hung.ErrSilent) {
				return exitDown, err
			}
			return exitFailed, err
		}
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if whole {
		_, _ = fmt.Fprintln(t, "PART\tSTATE\t")
		for _, name := range slices.Sorted(maps.Keys(ready.Dependencies)) {
			d := ready.Dependencies[name]
			_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", name, d.Status, line(strings.Join(append([]string{d.Error}, d.Notes...), " ")))
		}
		_, _ = fmt.Fprintln(t)
	}
	_, _ = fmt.Fprintln(t, "FUNCTION\tIDLE\tBUSY\tSTARTING\tWAITING\t")
	for _, p := range answer.Pools {
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%s\n", p.Function, p.Idle, p.Busy, p.Starting, p.Waiting, line(p.Error))
	}
	if err := t.Flush(); err != nil {
		return exitFailed, fmt.Errorf("print the status: %w", err)
	}
	if whole && ready.Status != "ok" {
		return exitUnhealthy, nil
	}
	return exitOK, nil
}

// read reads a JSON answer of the admin listener, whatever its status.
func read(ctx context.Context, getenv func(string) string, path string, answer any) error {
	resp, err := askAdmin(ctx, getenv, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("read the answer to %s: %w", path, err)
	}
	return nil
}

// line keeps a message in its row.
func line(text string) string { return strings.Join(strings.Fields(text), " ") }
