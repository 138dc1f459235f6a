package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/agent"
)

// A container keeps the agent's settings of the moment when it was made: they are in its spec and in its environment. Its label
// names each with a digest of its value, so that an agent with other settings knows that the container is outdated, and by what.

// Names of marks that not every container has.
const (
	markLogRate = "log_rate"
	markTmp     = "tmp"
)

// marksOf are the digests of the settings that reach containers, by name.
func marksOf(cfg Config, box netip.Addr) map[string]string {
	marks := map[string]string{}
	for name, value := range map[string]any{
		"account":     cfg.AccountID,
		"box":         box.String(),
		"environment": cfg.Environment,
		"logs":        cfg.LogDir,
		markLogRate:   cfg.LogRate,
		"nofile":      cfg.NoFile,
		"pids":        cfg.PIDsLimit,
		"region":      cfg.Region,
		markTmp:       []any{cfg.TmpSizeMB, cfg.TmpOnDisk},
	} {
		data, _ := json.Marshal(value) // strings, numbers and maps of strings, whose names it sorts
		sum := sha256.Sum256(data)
		marks[name] = hex.EncodeToString(sum[:4])
	}
	return marks
}

// madeWith is the label of a container that is made of spec now.
func (r *Runtime) madeWith(spec agent.ContainerSpec) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.marks)) {
		if name == markTmp && spec.EphemeralStorageMB > 0 || name == markLogRate && spec.Interface != agent.Supervisor {
			continue // it is not the setting that counts
		}
		parts = append(parts, name+"="+r.marks[name])
	}
	return strings.Join(parts, ",")
}

// differs names the settings that a container was made with and that are others now. What its label does not name is not known to be
// another one: an earlier agent may have made it.
func (r *Runtime) differs(label string) []string {
	var names []string
	for part := range strings.SplitSeq(label, ",") {
		name, mark, ok := strings.Cut(part, "=")
		if now, known := r.marks[name]; ok && known && now != mark {
			names = append(names, name)
		}
	}
	return names
}
