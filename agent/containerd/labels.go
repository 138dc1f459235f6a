package containerd

import (
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/agent"
)

// Labels of a container beside agent.LabelFunction and agent.LabelCreatedBy. An agent that starts anew knows from
// them all that it has to know; they are written once, when the container is made, and once more when one that was parked
// gets its function.
const (
	labelStack      = "esb_stack" // which agent's: two stacks may share one containerd
	labelGeneration = "esb_generation"
	labelImage      = "esb_image"
	labelDigest     = "esb_image_digest"
	labelIP         = "esb_ip"
	labelPort       = "esb_port" // of the worker endpoint
	labelAttachment = "esb_attachment"
	labelFirstID    = "esb_first_id" // the machine's id that is 0 in the container's user namespace
	labelInterface  = "esb_interface"
	labelStandby    = "esb_standby"
	labelMemory     = "esb_memory_mb"
	labelCreated    = "esb_created_at"
	labelOwner      = "esb_owner"
	labelMadeWith   = "esb_made_with" // Runtime.madeWith
	labelCode       = "esb_code"      // trees of the code store that are mounted, separated by commas
	labelName       = "esb_name"      // of one that was parked: its id in containerd is of before it had a function
	labelParked     = "esb_parked"    // of one that is nobody's yet
	labelShim       = "esb_shim"      // the shim that it is in, when that is one of agent/shims
)

// record is what the labels of a container say.
type record struct {
	agent.Container
	// sandbox is its id in containerd and the name of its cgroup: ID, but for one that was parked before its function was known.
	// Both have the same random part.
	sandbox string
	// parked: it is nobody's yet.
	parked     bool
	attachment string
	memoryMB   int
	// madeWith is empty where an earlier agent made it.
	madeWith string
	// firstID is the machine's id that is 0 in the container; 0 where an earlier agent made it without a user namespace.
	firstID uint32
	// shim is the one that it is in, when that is one of agent/shims.
	shim string
	// view is the snapshot that the root filesystem of one that was parked is a view of.
	view string
	// code has the ids of the trees of the code store that are mounted.
	code []string
}

func (r record) labels(stack string) map[string]string {
	labels := map[string]string{
		agent.LabelFunction:  r.FunctionName,
		agent.LabelCreatedBy: agent.CreatedBy,
		labelStack:           stack,
		labelGeneration:      r.Generation,
		labelImage:           r.Image,
		labelDigest:          r.ImageDigest,
		labelIP:              r.IP,
		labelPort:            strconv.Itoa(r.Port),
		labelAttachment:      r.attachment,
		labelFirstID:         strconv.FormatUint(uint64(r.firstID), 10),
		labelInterface:       string(r.Interface),
		labelStandby:         strconv.FormatBool(r.Standby),
		labelMemory:          strconv.Itoa(r.memoryMB),
		labelCreated:         r.CreatedAt.UTC().Format(time.RFC3339Nano),
		labelOwner:           r.Owner,
		labelMadeWith:        r.madeWith,
		labelCode:            strings.Join(r.code, ","),
	}
	if r.ID != r.sandbox {
		labels[labelName] = r.ID
	}
	if r.shim != "" {
		labels[labelShim] = r.shim
	}
	if r.parked {
		labels[labelParked] = strconv.FormatBool(true)
	}
	return labels
}

// recordOf reads the labels back. Nobody else writes them, so a value that does not parse is the zero value.
func recordOf(sandbox string, labels map[string]string) record {
	id := firstOf(labels[labelName], sandbox)
	created, _ := time.Parse(time.RFC3339Nano, labels[labelCreated])
	standby, _ := strconv.ParseBool(labels[labelStandby])
	memory, _ := strconv.Atoi(labels[labelMemory])
	port, err := strconv.Atoi(labels[labelPort])
	if err != nil {
		port = agent.RIEPort // an earlier agent made it, whose containers all listened there
	}
	first, _ := strconv.ParseUint(labels[labelFirstID], 10, 32)
	var code []string
	if ids := labels[labelCode]; ids != "" {
		code = strings.Split(ids, ",")
	}
	return record{
		Container: agent.Container{
			ID: id, Name: id, FunctionName: labels[agent.LabelFunction], Status: agent.StatusUnknown,
			IP: labels[labelIP], Port: port, Image: labels[labelImage], ImageDigest: labels[labelDigest],
			Generation: labels[labelGeneration], Interface: agent.RuntimeInterface(labels[labelInterface]), Standby: standby,
			CreatedAt: created, LastUsedAt: created, Owner: labels[labelOwner],
		},
		sandbox:    sandbox,
		parked:     labels[labelParked] != "",
		attachment: labels[labelAttachment],
		memoryMB:   memory,
		madeWith:   labels[labelMadeWith],
		firstID:    uint32(first),
		shim:       labels[labelShim],
		code:       code,
	}
}
