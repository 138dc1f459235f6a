package containerd

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// nodeClient is the runtime client of the box's base image of Node.js (functions/runtimes).
const nodeClient = "/var/runtime/bootstrap.js"

// nodeHeap returns the entrypoint of a Node.js runtime with V8's heap bound by the function's memory, as the start script
// of AWS's runtimes has it: a tenth is left to the young generation, whose semi-spaces are half of that, and to
// what is no heap; the rest is the old generation's. V8 would go by the machine's memory, and meet the limit of the container
// before it collects. A NODE_OPTIONS that names either size has the whole say.
func nodeHeap(entrypoint []string, memoryMB int, nodeOptions string) []string {
	if len(entrypoint) < 2 || path.Base(entrypoint[0]) != "node" || entrypoint[1] != nodeClient || memoryMB <= 0 {
		return entrypoint
	}
	for _, name := range []string{"max_old_space_size", "max_semi_space_size"} {
		if strings.Contains(strings.ReplaceAll(nodeOptions, "-", "_"), name) {
			return entrypoint
		}
	}
	young := memoryMB / 10
	return slices.Insert(slices.Clone(entrypoint), 1,
		fmt.Sprintf("--max-semi-space-size=%d", young/2), fmt.Sprintf("--max-old-space-size=%d", memoryMB-young))
}

// variable returns the value of a variable in a list of name=value.
func variable(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}
