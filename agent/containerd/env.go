package containerd

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/agent"
)

// initLimitMS is what lambda-init gives the init phase (AWS: 10 s, Lambda developer guide, "Execution environment").
const initLimitMS = 10_000

// lang is AWS's LANG.
const lang = "en_US.UTF-8"

// Where AWS has its X-Ray daemon (recorded). SDKs send datagrams there; here nobody listens, and they notice nothing.
const (
	xrayHost = "169.254.100.1"
	xrayPort = "2000"
)

// Paths in a supervised container (docs/lambda-init.md).
const (
	initPath   = "/run/esb/lambda-init"
	notifyDir  = "/run/esb/notify"
	notifyPath = notifyDir + "/" + notifyName
	cgroupPath = "/sys/fs/cgroup"
	logPath    = "/run/esb/log"
	bindName   = "bind.sock"
	bindPath   = notifyDir + "/" + bindName
)

// environment returns a container's variables, sorted: the box's own for all functions, over them those of the image, over
// them the function's, over them the ones that AWS reserves (Lambda developer guide, "Defined runtime environment variables").
func environment(in specInput) []string {
	env := map[string]string{
		"PATH":                     "/usr/local/bin:/usr/bin:/bin:/opt/bin",
		"LANG":                     lang,
		"TZ":                       ":UTC",
		"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
		"AWS_XRAY_DAEMON_ADDRESS":  xrayHost + ":" + xrayPort,
		"_AWS_XRAY_DAEMON_ADDRESS": xrayHost,
		"_AWS_XRAY_DAEMON_PORT":    xrayPort,
		"LAMBDA_TASK_ROOT":         taskRoot,
		"LAMBDA_RUNTIME_DIR":       runtimeDir,
	}
	maps.Copy(env, in.environment)
	images := map[string]bool{}
	for _, kv := range in.image.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k], images[k] = v, true
	}
	if in.spec.Code != nil {
		own := in.spec.Code.Base == "" || baseImage(in.spec.Code.Base) != ""
		for k, v := range runtimeVariables(in.spec.Code.Runtime) {
			// A base image of the operator's may have its interpreter in other places than AWS, and find it by its own variables.
			if own || !images[k] {
				env[k] = v
			}
		}
	}
	taskRoot, runtimeDir := env["LAMBDA_TASK_ROOT"], env["LAMBDA_RUNTIME_DIR"]
	maps.Copy(env, in.spec.Env)

	maps.DeleteFunc(env, func(k, _ string) bool { return strings.HasPrefix(k, "ESB_INIT_") })
	// With it set, AWS base images skip RIE and look for a Runtime API; lambda-init sets it to its own.
	delete(env, "AWS_LAMBDA_RUNTIME_API")
	timeout := int(in.spec.Timeout.Seconds())
	if in.spec.Interface == agent.RIE {
		timeout++ // the gateway's deadline comes first: it knows better how to answer than RIE does
	}
	maps.Copy(env, map[string]string{
		"LAMBDA_TASK_ROOT":                taskRoot,
		"LAMBDA_RUNTIME_DIR":              runtimeDir,
		"AWS_REGION":                      in.region,
		"AWS_DEFAULT_REGION":              in.region,
		"AWS_ACCOUNT_ID":                  in.account,
		"AWS_LAMBDA_FUNCTION_NAME":        in.spec.FunctionName,
		"AWS_LAMBDA_FUNCTION_VERSION":     "$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.Itoa(in.spec.MemoryMB),
		"AWS_LAMBDA_FUNCTION_TIMEOUT":     strconv.Itoa(timeout),
		"AWS_LAMBDA_INITIALIZATION_TYPE":  "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME":       "/aws/lambda/" + in.spec.FunctionName,
		"AWS_LAMBDA_LOG_STREAM_NAME":      in.logStream,
	})
	delete(env, "_HANDLER")
	if cmd := in.command(); len(cmd) > 0 {
		env["_HANDLER"] = cmd[0]
	}
	if in.spec.Code != nil {
		env["_HANDLER"] = firstOf(in.spec.Code.Handler, "bootstrap")
		// AWS: "not defined for functions that use the provided runtimes".
		delete(env, "AWS_EXECUTION_ENV")
		if !strings.HasPrefix(in.spec.Code.Runtime, "provided.") {
			env["AWS_EXECUTION_ENV"] = "AWS_Lambda_" + in.spec.Code.Runtime
		}
	}
	if _, set := env["HOME"]; !set {
		// The user of an image has a home there. AWS's has one that does not exist, and no variable that names it: what asks for
		// his home gets that from /etc/passwd, and what finds none takes /tmp.
		env["ESB_INIT_HOME"] = "user"
		if in.user.uid == defaultUID {
			env["ESB_INIT_HOME"] = "none"
		}
	}
	env["ESB_INIT_NOFILE"], env["ESB_INIT_NPROC"] = strconv.Itoa(in.noFile), strconv.Itoa(in.pidsLimit)
	env["ESB_INIT_LOG"], env["ESB_INIT_LOG_RATE"] = logPath, strconv.Itoa(max(in.logRate, 1))
	env["ESB_INIT_USER"] = in.user.setting()
	if in.spec.Interface == agent.Supervisor {
		standby := "0"
		if in.spec.Standby {
			standby = "1"
		}
		maps.Copy(env, map[string]string{
			"ESB_INIT_NOTIFY":    notifyPath,
			"ESB_INIT_CGROUP":    in.memoryFolder(),
			"ESB_INIT_STANDBY":   standby,
			"ESB_INIT_LIMIT_MS":  strconv.Itoa(initLimitMS),
			"ESB_INIT_LISTEN":    "0.0.0.0:" + strconv.Itoa(agent.SupervisorPort),
			"ESB_INIT_CONTAINER": in.id,
		})
		if in.managed() {
			env["ESB_INIT_WRAPPER"] = "1"
		}
	}
	out := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}
