package lambdainit

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// User is whom the function's processes run as. lambda-init is another one, so that files, sockets and memory of its own are
// closed to them, and has the capabilities to become it.
type User struct {
	UID, GID uint32
	// Groups are the supplementary ones.
	Groups []uint32
}

// parseUser reads "uid:gid" or "uid:gid:group,group...".
func parseUser(text string) (*User, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return nil, fmt.Errorf("%q has no two or three parts", text)
	}
	var ids []uint32
	fields := parts[:2]
	if len(parts) == 3 {
		fields = append(fields, strings.Split(parts[2], ",")...)
	}
	for _, f := range fields {
		id, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, err
		}
		ids = append(ids, uint32(id))
	}
	return &User{UID: ids[0], GID: ids[1], Groups: ids[2:]}, nil
}

func (u *User) credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// home is the user's folder by the image's file of users, "/" for one who is not in it.
func (u *User) home(passwd string) string {
	f, err := os.Open(passwd)
	if err != nil {
		return "/"
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// name:password:uid:gid:comment:home:shell (passwd(5))
		fields := strings.Split(lines.Text(), ":")
		if len(fields) >= 6 && fields[2] == strconv.FormatUint(uint64(u.UID), 10) && strings.HasPrefix(fields[5], "/") {
			return fields[5]
		}
	}
	return "/"
}

// withoutHome is an environment without HOME.
func withoutHome(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, "HOME=") })
}
