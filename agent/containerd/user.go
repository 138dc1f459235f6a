package containerd

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cni"
)

// Whom functions run as where the image names nobody, or root (AWS: recorded).
const (
	defaultUID = 993
	defaultGID = 990
)

// defaultAccount is his line in /etc/passwd (AWS: recorded). The folder does not exist there either, and his group has no name.
const defaultAccount = "sbx_user1051:x:993:990::/home/sbx_user1051:/sbin/nologin"

// user is whom a function's processes run as, by the ids that they see.
type user struct {
	uid, gid uint32
	groups   []uint32
}

// setting is what lambda-init is told: uid:gid or uid:gid:group,group.
func (u user) setting() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d", u.uid, u.gid)
	for i, g := range u.groups {
		b.WriteByte(":,"[min(i, 1)])
		b.WriteString(strconv.FormatUint(uint64(g), 10))
	}
	return b.String()
}

// namesUser says whether an image has a USER of its own, whose files may be his alone.
func namesUser(text string) bool {
	name, _, _ := strings.Cut(text, ":")
	return name != "" && name != "root" && name != "0"
}

// functionUser returns the user that an image names, by the image's own files: c has its root filesystem.
func (l *launch) functionUser(ctx context.Context, c *containers.Container) (user, error) {
	named := l.image.Config.User
	if !namesUser(named) {
		return user{uid: defaultUID, gid: defaultGID}, nil
	}
	key := l.image.Chain + " " + named
	if known, ok := l.r.users.Load(key); ok {
		return known.(user), nil
	}
	ctx = namespaces.WithNamespace(ctx, agent.Namespace)
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	if err := oci.WithUser(named)(ctx, l.r.client, c, s); err != nil {
		return user{}, agent.Errorf(agent.CodePrecondition, "image %s: USER %s: %w", l.image.Name, named, err)
	}
	uid := strconv.FormatUint(uint64(s.Process.User.UID), 10)
	if err := oci.WithAdditionalGIDs(uid)(ctx, l.r.client, c, s); err != nil {
		return user{}, agent.Errorf(agent.CodePrecondition, "image %s: groups of USER %s: %w", l.image.Name, named, err)
	}
	u := user{uid: s.Process.User.UID, gid: s.Process.User.GID, groups: s.Process.User.AdditionalGids}
	if u.uid == 0 {
		u = user{uid: defaultUID, gid: defaultGID} // root by another name
	}
	if u.uid >= cni.IDs || u.gid >= cni.IDs || slices.ContainsFunc(u.groups, func(g uint32) bool { return g >= cni.IDs }) {
		return user{}, agent.Errorf(agent.CodePrecondition, "image %s: USER %s: ids must be below %d, got %s", l.image.Name, named, cni.IDs, u.setting())
	}
	l.r.users.Store(key, u)
	return u, nil
}

// idMappings maps the ids of a container to its range of the machine's.
func idMappings(first uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: first, Size: cni.IDs}}
}

// mappedRoot are the labels of a snapshot whose files belong, in the container, to the users that the image gives them to.
// Without them they are nobody's there, which is enough to read what everybody may read, and takes less time.
func mappedRoot(first uint32) map[string]string {
	ids := fmt.Sprintf("0:%d:%d", first, cni.IDs)
	return map[string]string{snapshots.LabelSnapshotUIDMapping: ids, snapshots.LabelSnapshotGIDMapping: ids}
}
