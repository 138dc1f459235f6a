// Command esb runs the box as plain processes of this machine: esb up, down, status, logs. `go tool task` builds and
// calls it in a working copy; in an installation it needs neither Go nor sources.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/build"
	"github.com/edge-serverless-box/esb/native/logview"
	"github.com/edge-serverless-box/esb/native/stack"
)

// Exit codes. Those of status are the ones that the LSB gives to init scripts.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 2
	exitDown      = 3
	exitUnhealthy = 4
)

const usage = `esb runs the edge serverless box on this machine.

  esb up                             start the box; building what is missing
  esb run                            the same in the foreground: watches it, and stops it at SIGTERM (a second one hastens)
  esb down                           stop it and remove all that it has made, but data, images, logs and keys
  esb check                          say what is wrong with functions.yml, routing.yml and resources.yml, before or after saving; exit code 1
  esb status [-json]                 services and containers; exit code 0 up, 3 down, 4 not healthy
  esb logs [-f] [-n lines] [name...] logs of services (agent, gateway, containerd), functions, containers
       [-level WARN] [-json]         what is at least so grave; lines as they are, for programs
       [-store] [-q query]           from VictoriaLogs, by a LogsQL query such as request_id:=ID
  esb admin [METHOD] PATH            ask the gateway's admin listener as its operator: /readyz /pools /metrics /async /schedules
  esb doctor [-fix]                  say what is wrong with the machine, the box's files and what it has on the machine, and what to do;
                                     -fix does what does no harm, and sets damaged files aside; exit code 1 when something is left
  esb images [-json]                 the images that the box has, and when they were last used
  esb images rm NAME...              remove images that nothing uses; -archives: their archives, too
  esb images prune [-days N]         remove all images that nothing has used for N days (default 0); -archives as above
  esb build [group...]               build only: services runtime stores inspect generate lint test vulncheck (default: the first four)

  esb install [-print] [RELEASE]     install the box on this machine, below /opt/esb, /etc/esb and /var/lib/esb, as a service of systemd;
      [-prefix DIR] [-start=false]   -print says what would be done; -prefix: all of it below a folder; -unit prints the unit alone
  esb upgrade RELEASE                put another release in the place of the present one; a box that runs goes on with its programs, and
                                     with the old ones when it does not serve
  esb rollback                       the release of before again; esb upgrade -back is the same
  esb uninstall [-purge]             stop the box and remove it; -purge: its configuration and state, too
  esb release [-version V] PATH      build all, and make a release of it: a folder, or an archive (.tar.gz, .tar.zst), for another machine

In a working copy, -root DIR names the repository; install, upgrade, rollback and uninstall take -prefix DIR.

Settings are environment variables; docs/settings.md lists them.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), interrupts()...)
	code, err := run(ctx, os.Args[1:], os.Environ(), os.Stdout)
	stop()
	if err != nil {
		report(os.Stderr, err)
	}
	os.Exit(code)
}

// interrupts are the signals that end a command in an orderly way: a terminal that is closed, too, but under nohup.
func interrupts() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// report writes an error; problems stand one by one, each with what to do.
func report(w io.Writer, err error) {
	problems := native.Problems(err)
	if len(problems) == 0 {
		_, _ = fmt.Fprintf(w, "\nesb: %v\n", err)
		return
	}
	_, _ = fmt.Fprintln(w)
	for _, p := range problems {
		_, _ = fmt.Fprintf(w, "esb: %s\n  -> %s\n", p.What, p.Do)
	}
}

func run(ctx context.Context, args []string, environ []string, out io.Writer) (int, error) {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" {
		_, _ = fmt.Fprint(out, usage)
		return exitUsage, nil
	}
	command := args[0]
	flags := flag.NewFlagSet("esb "+command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	root := flags.String("root", "", "repository (default: the one around the current folder)")
	asJSON, follow, lines := new(bool), new(bool), new(int)
	background := new(bool)
	store, query, level := new(bool), new(string), new(string)
	fix, brief := new(bool), new(bool)
	switch command {
	case "status":
		flags.BoolVar(asJSON, "json", false, "print JSON")
	case "logs":
		flags.BoolVar(follow, "f", false, "go on with what is written later")
		flags.IntVar(lines, "n", 50, "lines of each file to begin with; of all together from VictoriaLogs")
		flags.BoolVar(store, "store", false, "from VictoriaLogs instead of files")
		flags.StringVar(query, "q", "", "LogsQL query, from VictoriaLogs")
		flags.StringVar(level, "level", "", "what is at least so grave: DEBUG, INFO, WARN, ERROR")
		flags.BoolVar(asJSON, "json", false, "lines as they are, for programs")
	case "run":
		// How up starts it: the arguments are services that run already.
		flags.BoolVar(background, "background", false, "")
	case "doctor":
		flags.BoolVar(fix, "fix", false, "do the cures that do no harm")
	case "images":
		return images(ctx, args[1:], environ, out)
	case "up":
		// How an upgrade calls it: nobody is there who wants to know where the box is.
		flags.BoolVar(brief, "brief", false, "")
	case "install", "uninstall", "upgrade", "rollback", "release":
		return installation(ctx, command, args[1:], environ, out)
	case "down", "build", "admin", "check", "fit":
	default:
		return exitUsage, fmt.Errorf("no command %q\n\n%s", command, usage)
	}
	if err := flags.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		_, err := io.WriteString(out, usage)
		return exitOK, err
	} else if err != nil {
		return exitUsage, fmt.Errorf("%s: %w\n\n%s", command, err, usage)
	}
	if flags.NArg() > 0 && command != "logs" && command != "build" && command != "admin" && !*background {
		return exitUsage, fmt.Errorf("esb %s takes no argument %q", command, flags.Arg(0))
	}
	s, box, err := open(command, *root, environ, out)
	if err != nil {
		return exitFailed, err
	}
	switch command {
	case "up":
		err = box.Up(ctx, *brief)
	case "run":
		err = keep(ctx, box, *background, flags.Args())
	case "down":
		err = box.Down(ctx)
	case "check":
		err = box.Check(ctx)
	case "fit": // how an upgrade asks the programs of a release
		err = box.Fit(ctx)
	case "doctor":
		err = box.Doctor(ctx, *fix)
	case "build":
		groups := flags.Args()
		if len(groups) == 0 {
			groups = build.BoxGroups
		}
		err = box.Build(ctx, groups...)
	case "admin":
		method := http.MethodGet
		if flags.NArg() == 2 {
			method = flags.Arg(0)
		}
		if flags.NArg() < 1 || flags.NArg() > 2 {
			return exitUsage, fmt.Errorf("esb admin takes a path, such as /pools, and a method before it that is not GET")
		}
		err = box.Admin(ctx, method, flags.Arg(flags.NArg()-1), out)
	case "status":
		return status(ctx, box, *asJSON, out)
	case "logs":
		o := logview.Options{Dir: s.LogsDir(), Names: flags.Args(), Lines: *lines, Follow: *follow, JSON: *asJSON}
		if *level != "" {
			if o.Level, err = logview.ParseLevel(*level); err != nil {
				return exitUsage, err
			}
		}
		if *store || *query != "" || !isDir(o.Dir) { // there are no files here when the box runs in Docker
			logs := logview.Store{URL: s.LogsURL, User: s.LogsUser, Password: string(s.LogsPassword)}
			if logs.Password == "" && s.LogsPasswordFile != "" {
				if logs.Password, err = secretfile.Read(s.LogsPasswordFile); err != nil {
					return exitFailed, fmt.Errorf("VICTORIALOGS_PASSWORD_FILE: %w", err)
				}
			}
			err = logs.Search(ctx, out, *query, o)
		} else {
			err = logview.Show(ctx, out, o)
		}
	}
	if err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

// keep runs the box until a signal. A second one hastens its end.
func keep(ctx context.Context, box *stack.Stack, background bool, services []string) error {
	if background {
		ctx, stop := signal.NotifyContext(ctx, stack.LetGo())
		defer stop()
		return box.Supervise(ctx, services)
	}
	signals, relieve, hasten := make(chan os.Signal, 2), make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, interrupts()...)
	defer signal.Stop(signals)
	signal.Notify(relieve, stack.LetGo())
	defer signal.Stop(relieve)
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() { // ends with the program
		<-signals
		stop()
		<-signals
		close(hasten)
	}()
	return box.Run(watching, hasten, relieve)
}

// images lists images, or removes some.
func images(ctx context.Context, args []string, environ []string, out io.Writer) (int, error) {
	verb := "ls"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		verb, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("esb images "+verb, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	root := flags.String("root", "", "repository (default: the one around the current folder)")
	asJSON, archives, days := new(bool), new(bool), new(uint)
	switch verb {
	case "ls":
		flags.BoolVar(asJSON, "json", false, "print JSON")
	case "prune":
		flags.UintVar(days, "days", 0, "for how many days nothing has used them")
		fallthrough
	case "rm":
		flags.BoolVar(archives, "archives", false, "remove their archives, too")
	default:
		return exitUsage, fmt.Errorf("esb images: no command %q: ls, rm, prune", verb)
	}
	if err := flags.Parse(args); err != nil {
		return exitUsage, fmt.Errorf("esb images %s: %w\n\n%s", verb, err, usage)
	}
	if (flags.NArg() > 0) != (verb == "rm") {
		return exitUsage, fmt.Errorf("esb images %s: names of images are for rm, which needs one", verb)
	}
	_, box, err := open("images", *root, environ, out)
	if err != nil {
		return exitFailed, err
	}
	if verb == "ls" {
		err = box.Images(ctx, out, *asJSON)
	} else {
		err = box.RemoveImages(ctx, flags.Args(), time.Duration(*days)*24*time.Hour, *archives)
	}
	if err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func status(ctx context.Context, box *stack.Stack, asJSON bool, out io.Writer) (int, error) {
	st, err := box.Status(ctx)
	if err != nil {
		return exitFailed, err
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(st)
	} else {
		err = stack.PrintStatus(out, st, time.Now())
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		return exitFailed, err
	}
	switch st.State {
	case native.Healthy:
		return exitOK, nil
	case native.Down:
		return exitDown, nil
	case native.Unhealthy:
	}
	return exitUnhealthy, nil
}
