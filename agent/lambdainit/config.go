// Package lambdainit is process 1 of a function container: it starts the function's process, serves the Lambda
// Runtime API to it on loopback, takes one invocation at a time from the gateway on the worker endpoint, and turns
// everything the function writes into JSON log lines. docs/lambda-init.md is its contract.
//
// It depends on the standard library and golang.org/x/sys alone, because it is mounted into every container and
// its size and memory are paid by each of them.
package lambdainit

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/agent/loglevel"
)

// Payload limits of synchronous invocations (AWS: Lambda quotas; RIE interop.MaxPayloadSize).
const (
	// MaxRequestBytes is the largest event.
	MaxRequestBytes = 6 << 20
	// MaxResponseBytes is the largest result, 100 bytes more than the largest event.
	MaxResponseBytes = 6<<20 + 100
)

const (
	envPrefix     = "ESB_INIT_"
	envRuntimeAPI = "AWS_LAMBDA_RUNTIME_API"
	// envSystemLevel is of lambda-init's own, too, but comes from the function's configuration.
	envSystemLevel = "ESB_SYSTEM_LOG_LEVEL"
)

// Home says what becomes of the variable HOME.
type Home string

// What becomes of HOME.
const (
	HomeKeep Home = "keep"
	// HomeNone removes it: AWS sets none, and there is code that takes a folder of its own then.
	HomeNone Home = "none"
	HomeUser Home = "user"
)

// Config is what lambda-init is told by its environment. The ESB_INIT_ variables are removed before the function
// starts; the AWS ones stay.
type Config struct {
	// Command is the function's program and its arguments: the image's entrypoint and command.
	Command []string
	// Ahead is a runtime that was started before the function was known, for its first process; nil for none. Its user is User.
	Ahead *Ahead
	// Env is the function's environment, without the ESB_INIT_ variables and AWS_LAMBDA_RUNTIME_API.
	Env []string

	// Notify is the path of the agent's unix datagram socket (ESB_INIT_NOTIFY). Empty: nobody is told.
	Notify string
	// Log is the file that log lines are appended to (ESB_INIT_LOG). Empty: standard output.
	Log string
	// LogRate is how many bytes of log a second are written, after a burst of twice as much; a function that writes more waits in
	// its write call (ESB_INIT_LOG_RATE, default 0: no limit).
	LogRate int
	// Cgroup is the folder of the container's memory cgroup (ESB_INIT_CGROUP). Empty: no memory figures, and an
	// out-of-memory kill is not told from any other SIGKILL.
	Cgroup string
	// User is whom the function's processes run as (ESB_INIT_USER, uid:gid or uid:gid:group,group...). Nil: as lambda-init
	// itself. The container gives lambda-init CAP_SETUID, CAP_SETGID and CAP_KILL for it.
	User *User
	// Files and Processes are limits that this process sets itself, and its children inherit (ESB_INIT_NOFILE, ESB_INIT_NPROC;
	// default 0: as they are). The second is shown where programs look for it; the cgroup enforces it.
	Files, Processes int
	// Home is what becomes of HOME, which runc has set to lambda-init's own where neither image nor function says
	// (ESB_INIT_HOME, default keep): HomeNone, or that of User in the image's /etc/passwd, "/" when he is not there.
	Home Home
	// Wrapper is the program that starts the runtime (AWS_LAMBDA_EXEC_WRAPPER, of a managed runtime alone: ESB_INIT_WRAPPER, 0 or
	// 1, default 0). Empty: the runtime is started as it is.
	Wrapper string
	// Standby leaves the start of the function to the first request (ESB_INIT_STANDBY, 0 or 1, default 0: at once).
	Standby bool
	// InitLimit bounds the init phase (ESB_INIT_LIMIT_MS, milliseconds, default 10000; AWS: 10 s). An init that
	// takes longer is done again with the first invocation, within the function's timeout.
	InitLimit time.Duration
	// Listen is the address of the worker endpoint (ESB_INIT_LISTEN, default 0.0.0.0:27182): a port that no web server takes by
	// habit, because a function may listen wherever it likes. It is bound before the first process of the function is there, and
	// never let go, without SO_REUSEPORT: nobody else can come to it, in no life of the function's process.
	Listen string
	// RuntimeAPI is the address of the Runtime API (ESB_INIT_RUNTIME_API, default 127.0.0.1:9001). With port 0 each
	// function process gets a port of its own.
	RuntimeAPI string
	// Container is the container's name, for log lines; a request to the worker endpoint must name it in
	// X-Esb-Container-Id (ESB_INIT_CONTAINER). Empty: every request is taken.
	Container string
	// Extensions is the folder of external extensions (ESB_INIT_EXTENSIONS, default /opt/extensions as AWS's): each file
	// in it is started before the function.
	Extensions string

	// LogJSON says that the function's log format is JSON (AWS_LAMBDA_LOG_FORMAT, Text or JSON, default Text): what lambda-init itself
	// has to say is JSON then. Levels count with it alone: LogLevel is the least of the function's lines (AWS_LAMBDA_LOG_LEVEL, TRACE to
	// FATAL), SystemLogLevel that of lambda-init's (ESB_SYSTEM_LOG_LEVEL, DEBUG, INFO or WARN, default INFO).
	LogJSON                  bool
	LogLevel, SystemLogLevel string

	// Function is the function's name (AWS_LAMBDA_FUNCTION_NAME).
	Function string
	// Handler is what an extension is told when it registers (_HANDLER).
	Handler string
	// Version is the function's version (AWS_LAMBDA_FUNCTION_VERSION, default $LATEST).
	Version string
	// MemoryMB is the function's memory (AWS_LAMBDA_FUNCTION_MEMORY_SIZE, default 128), for the REPORT line.
	MemoryMB int
	// Timeout of an invocation that brings no deadline (AWS_LAMBDA_FUNCTION_TIMEOUT, seconds, default 3).
	Timeout time.Duration
	// Region and Account are parts of the function's ARN (AWS_REGION, AWS_ACCOUNT_ID).
	Region  string
	Account string
}

// ConfigFromEnv reads the settings from environ ("KEY=value") and the function's command from command. Its error
// names every variable that is wrong.
func ConfigFromEnv(environ, command []string) (Config, error) {
	c := Config{
		Command:    command,
		InitLimit:  10 * time.Second,
		Listen:     "0.0.0.0:27182",
		RuntimeAPI: "127.0.0.1:9001",
		Extensions: "/opt/extensions",

		SystemLogLevel: loglevel.Info,

		Function: "function",
		Version:  "$LATEST",
		MemoryMB: 128,
		Timeout:  3 * time.Second,
		Region:   "us-east-1",
		Account:  "000000000000",
	}
	var errs []error
	wraps := false
	fail := func(key, value, want string) {
		errs = append(errs, fmt.Errorf("%s: must be %s, got %q", key, want, value))
	}
	address := func(key, value string, to *string) {
		if _, port, err := net.SplitHostPort(value); err != nil || port == "" {
			fail(key, value, "host:port")
			return
		}
		*to = value
	}
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(key, envPrefix) && key != envRuntimeAPI && key != envSystemLevel {
			c.Env = append(c.Env, kv)
		}
		if value == "" {
			continue
		}
		switch key {
		case "ESB_INIT_NOTIFY":
			c.Notify = value
		case "ESB_INIT_CGROUP":
			c.Cgroup = value
		case "ESB_INIT_STANDBY", "ESB_INIT_WRAPPER":
			if value != "0" && value != "1" {
				fail(key, value, "0 or 1")
			}
			if key == "ESB_INIT_WRAPPER" {
				wraps = value == "1"
			} else {
				c.Standby = value == "1"
			}
		case "ESB_INIT_HOME":
			if c.Home = Home(value); c.Home != HomeKeep && c.Home != HomeNone && c.Home != HomeUser {
				fail(key, value, "keep, none or user")
			}
		case envWrapper:
			c.Wrapper = value
		case "ESB_INIT_LOG":
			c.Log = value
		case "ESB_INIT_NOFILE", "ESB_INIT_NPROC", "ESB_INIT_LOG_RATE":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				fail(key, value, "a whole number, 1 or more")
			}
			switch key {
			case "ESB_INIT_NOFILE":
				c.Files = n
			case "ESB_INIT_NPROC":
				c.Processes = n
			default:
				c.LogRate = n
			}
		case "ESB_INIT_USER":
			var err error
			if c.User, err = parseUser(value); err != nil {
				fail(key, value, "uid:gid or uid:gid:group,group")
			}
		case "ESB_INIT_LIMIT_MS":
			ms, err := strconv.Atoi(value)
			if err != nil || ms < 1 {
				fail(key, value, "a whole number of milliseconds, 1 or more")
			}
			c.InitLimit = time.Duration(ms) * time.Millisecond
		case "ESB_INIT_LISTEN":
			address(key, value, &c.Listen)
		case "ESB_INIT_RUNTIME_API":
			address(key, value, &c.RuntimeAPI)
		case "ESB_INIT_CONTAINER":
			c.Container = value
		case "ESB_INIT_EXTENSIONS":
			c.Extensions = value
		case "AWS_LAMBDA_LOG_FORMAT": // whatever it is, it is the function's as well
			c.LogJSON = strings.EqualFold(value, "JSON")
		case "AWS_LAMBDA_LOG_LEVEL":
			c.LogLevel = strings.ToUpper(value)
		case envSystemLevel:
			if c.SystemLogLevel = value; loglevel.Rank(value) == 0 {
				fail(key, value, "DEBUG, INFO or WARN")
			}
		case "_HANDLER":
			c.Handler = value
		case "AWS_LAMBDA_FUNCTION_NAME":
			c.Function = value
		case "AWS_LAMBDA_FUNCTION_VERSION":
			c.Version = value
		case "AWS_LAMBDA_FUNCTION_MEMORY_SIZE":
			mb, err := strconv.Atoi(value)
			if err != nil || mb < 1 {
				fail(key, value, "a whole number of MB")
			}
			c.MemoryMB = mb
		case "AWS_LAMBDA_FUNCTION_TIMEOUT":
			s, err := strconv.ParseFloat(value, 64)
			if err != nil || !(s > 0 && s <= 900) {
				fail(key, value, "a number of seconds from 0 to 900")
			}
			c.Timeout = time.Duration(s * float64(time.Second))
		case "AWS_REGION":
			c.Region = value
		case "AWS_ACCOUNT_ID":
			c.Account = value
		default:
			if strings.HasPrefix(key, envPrefix) {
				errs = append(errs, fmt.Errorf("%s: no such setting, see docs/lambda-init.md", key))
			}
		}
	}
	if len(command) == 0 || command[0] == "" {
		errs = append(errs, errors.New("no command: the image has neither an entrypoint nor a command; call lambda-init -- <program> [argument...]"))
	}
	if !wraps {
		c.Wrapper = ""
	}
	switch {
	case c.Home == HomeNone:
		c.Env = withoutHome(c.Env)
	case c.Home == HomeUser && c.User != nil:
		c.Env = append(withoutHome(c.Env), "HOME="+c.User.home("/etc/passwd"))
	}
	return c, errors.Join(errs...)
}

// functionARN is the function's ARN as its caller named it: with a qualifier, unless that is "".
func (c Config) functionARN(qualifier string) string {
	arn := "arn:aws:lambda:" + c.Region + ":" + c.Account + ":function:" + c.Function
	if qualifier != "" {
		arn += ":" + qualifier
	}
	return arn
}
