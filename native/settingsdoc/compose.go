package settingsdoc

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/guard/setting"
)

// In a Compose file, the lines between a line "# settings of <services>:" and the next "# end of settings" hand on what the
// shell or .env says: a variable without a value there is set in the container when it is set where Compose runs.
var (
	blockBegin = regexp.MustCompile(`^( *)# settings of ([a-z, ]+):`)
	explicit   = regexp.MustCompile(`^ *([A-Z][A-Z0-9_]*):`)
	mentioned  = regexp.MustCompile(`\$\{([A-Z][A-Z0-9_]*)`)
)

const blockEnd = "# end of settings"

// notHandedOn are variables of the Compose files themselves, folders and programs of the images, and what only native tells a service.
var notHandedOn = []string{"BIN_SOURCE", "ESB_PROJECT", "ESB_HOME", "GATEWAY_HOME", "ESB_LOG_DIR", "ESB_BIN_DIR", "ESB_RUN_DIR", "AGENT_SOCKET", "CONTAINERD_ADDRESS", "GATEWAY_REPLACES", "STORES_REPLACES", "GATEWAY_SOCKETS", "STORES_SOCKETS"}

// Compose returns a Compose file with its blocks made anew. A block has the settings of the services that it names, by the
// names of guard/setting, "stack" being what the file at stack mentions as ${NAME}; what the block's own map sets to a value
// before it, is left out.
func Compose(root, file, stack string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return "", err
	}
	var out, own []string
	inside := false
	for i, line := range strings.Split(string(data), "\n") {
		switch m := blockBegin.FindStringSubmatch(line); {
		case m != nil:
			names, err := variables(root, stack, strings.Split(m[2], ", "))
			if err != nil {
				return "", fmt.Errorf("%s:%d: %w", file, i+1, err)
			}
			out = append(out, line)
			for _, name := range names {
				if !slices.Contains(own, name) {
					out = append(out, m[1]+name+":")
				}
			}
			inside = true
		case strings.TrimSpace(line) == blockEnd:
			inside = false
			out = append(out, line)
		case !inside:
			if strings.HasSuffix(strings.TrimSpace(line), "environment:") || strings.Contains(line, "environment: &") {
				own = nil
			}
			if m := explicit.FindStringSubmatch(line); m != nil {
				own = append(own, m[1])
			}
			out = append(out, line)
		}
	}
	if inside {
		return "", fmt.Errorf("%s: a block of settings has no line %q", file, blockEnd)
	}
	return strings.Join(out, "\n"), nil
}

// variables of services, sorted.
func variables(root, stack string, services []string) ([]string, error) {
	all := make(map[string]bool)
	for _, service := range services {
		if service == "stack" {
			data, err := os.ReadFile(filepath.Join(root, stack))
			if err != nil {
				return nil, err
			}
			for _, m := range mentioned.FindAllStringSubmatch(string(data), -1) {
				all[m[1]] = true
			}
			continue
		}
		settings := setting.Of(setting.Service(service))
		if len(settings) == 0 {
			return nil, fmt.Errorf("there is no service %q with settings", service)
		}
		for _, e := range settings {
			for _, v := range e.Variables() {
				all[v] = true
			}
		}
	}
	for _, name := range notHandedOn {
		delete(all, name)
	}
	return slices.Sorted(maps.Keys(all)), nil
}
