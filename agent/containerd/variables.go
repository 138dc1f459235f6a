package containerd

import (
	"path"
	"regexp"
	"strings"
)

// Where AWS's environment has things (Lambda developer guide, "Defined runtime environment variables").
const (
	taskRoot   = "/var/task"
	runtimeDir = "/var/runtime"
)

// clientFile matches the runtime clients of the box's base images (functions/runtimes).
var clientFile = regexp.MustCompile(`^/var/runtime/bootstrap\.(pyc?|m?js)$`)

// managed says whether the container runs a managed runtime of the box: code in Python or Node.js, or an image that was made
// from the box's base of one and kept its entrypoint. In AWS's base images the entrypoint does itself what is done here for these.
func (in specInput) managed() bool {
	for _, arg := range in.entrypoint() {
		if clientFile.MatchString(arg) {
			return true
		}
	}
	return false
}

// runtimeVariables are what AWS sets for code in a runtime, by the runtime's name (recorded; the folders of layers are those of the
// developer guide, "Packaging your layer content"). Nothing has to be in those folders: /var/lang is where AWS has its interpreters,
// and some base image that an operator names may have them there too.
func runtimeVariables(runtime string) map[string]string {
	v := map[string]string{
		"PATH":            "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
		"LD_LIBRARY_PATH": "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
		"LANG":            lang,
		"TZ":              ":UTC",
	}
	if strings.HasPrefix(runtime, "provided.") {
		return v
	}
	v["PATH"] = "/var/lang/bin:" + v["PATH"]
	v["LD_LIBRARY_PATH"] = "/var/lang/lib:" + v["LD_LIBRARY_PATH"]
	// AWS's start script is a shell, which leaves these.
	v["PWD"], v["SHLVL"] = taskRoot, "0"
	if version, ok := strings.CutPrefix(runtime, "nodejs"); ok {
		version, _, _ = strings.Cut(version, ".")
		v["NODE_PATH"] = strings.Join([]string{
			"/opt/nodejs/node" + version + "/node_modules", "/opt/nodejs/node_modules", path.Join(runtimeDir, "node_modules"), runtimeDir, taskRoot,
		}, ":")
	}
	if strings.HasPrefix(runtime, "python") {
		v["PYTHONPATH"] = runtimeDir
	}
	return v
}
