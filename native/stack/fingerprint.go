package stack

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/build"
	"github.com/edge-serverless-box/esb/native/process"
)

var reference = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// fingerprint digests what a service runs with: its user, its binaries and the settings that it reads, those included that
// functions.yml takes from the environment. A change of another's setting is no reason to start it again, and the rest of the
// environment differs from one terminal to the next and means nothing.
func (s *Stack) fingerprint(service string, user *process.User) (string, error) {
	h := sha256.New()
	if user != nil {
		_, _ = fmt.Fprintf(h, "%d %d %v\x00", user.UID, user.GID, user.Capabilities)
	}
	targets := []string{service}
	switch service {
	case native.Agent:
		for _, t := range build.Targets(build.GroupRuntime) {
			targets = append(targets, t.Name)
		}
	case native.Stores:
		targets = s.settings.StorePrograms()
	}
	for _, t := range targets {
		stamp, err := os.ReadFile(filepath.Join(s.settings.BinDir, ".stamps", t))
		if err != nil {
			return "", fmt.Errorf("read the stamp of %s: %w", t, err)
		}
		_, _ = h.Write(stamp)
	}
	var named []string
	if service == native.Gateway {
		// A file that cannot be read is the gateway's to complain about.
		for _, file := range []string{s.settings.FunctionsConfig, s.settings.RoutingConfig} {
			data, _ := os.ReadFile(file)
			for _, m := range reference.FindAllSubmatch(data, -1) {
				named = append(named, string(m[1]))
			}
		}
	}
	env := s.env(service)
	slices.Sort(env)
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains(named, name) || setting.Service(service).Reads(name) {
			_, _ = fmt.Fprintf(h, "%s\x00", v)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
