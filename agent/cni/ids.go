package cni

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"

	"github.com/edge-serverless-box/esb/agent"
)

const (
	// IDs is how many user and group ids a container has: what images name is below (Docker gives as many).
	IDs = 1 << 16
	// DefaultUIDBase is where a box's ids begin: above those of systemd's containers and dynamic users, and of /etc/subuid
	// as distributions fill it (systemd, "Users, Groups, UIDs and GIDs on systemd Systems").
	DefaultUIDBase = 0x7000_0000
	// reservedRanges from the base on are no container's: the second is that of the box's services.
	reservedRanges = 2
	// ranges is how many containers can be at once: as many as the bridge has ports.
	ranges = bridgePorts + 1
	// AllIDs is how many ids a box has.
	AllIDs = (reservedRanges + ranges) * IDs
)

// idRanges gives each attachment a range of ids of its own. The number of its range is in its id, so that nothing has to be kept.
type idRanges struct {
	// mu guards the following.
	mu    sync.Mutex
	taken map[int]bool
	// next is looked at first: a range that has just come free rests.
	next int
}

// newID makes an id for an attachment and takes a range. It is random rather than counted, so that an id of an earlier run or
// boot is never used again.
func (r *idRanges) newID() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range ranges {
		number := r.next
		r.next = (r.next + 1) % ranges
		if r.taken[number] {
			continue
		}
		r.taken[number] = true
		var b [8]byte
		_, _ = rand.Read(b[:]) // Never fails (crypto/rand).
		return hex.EncodeToString(b[:]) + "-" + strconv.Itoa(number), nil
	}
	return "", agent.Errorf(agent.CodeExhausted, "all %d ranges of user ids are taken: there are as many containers as a bridge takes", ranges)
}

// release gives back the range of an id.
func (r *idRanges) release(id string) {
	if number, ok := rangeOf(id); ok {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.taken, number)
	}
}

// rangeOf is the number of the range of an id.
func rangeOf(id string) (int, bool) {
	_, text, ok := strings.Cut(id, "-")
	number, err := strconv.Atoi(text)
	return number, ok && err == nil && number >= 0 && number < ranges
}

// firstID is the id of the machine that is 0 in the attachment's user namespace.
func (cfg Config) firstID(id string) uint32 {
	number, _ := rangeOf(id)
	return cfg.UIDBase + uint32(reservedRanges+number)*IDs
}
