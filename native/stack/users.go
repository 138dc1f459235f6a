package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/process"
)

// Modes of folders: of one owner, and of root where the gateway and the stores have folders inside, which they may enter and
// not list.
const (
	closed  fs.FileMode = 0o700
	passage fs.FileMode = 0o710
)

// functionKeys is the file with the secret of the functions' keys: root's in Home, with a copy for each who needs it.
const functionKeys = "function-keys"

// gatewayState is what the gateway kept in Home while it ran as root there.
func gatewayState() []string {
	return []string{"jwt.key", "tls", "jwks", "async", "schedules.json", "admin-token", "function-access.json"}
}

// folders makes the folders of the stack, and closes those that it has made before to others.
func (s *Stack) folders() error {
	now := s.settings
	gid := int(now.ServiceGID())
	if err := ensureFolder(now.Home, passage, 0, gid); err != nil {
		return err
	}
	if err := ensureFolder(now.RunDir(), closed, 0, 0); err != nil {
		return err
	}
	if within(now.LogsDir(), now.Home) {
		return ensureFolder(now.LogsDir(), passage, 0, gid)
	}
	// One that somebody else has made is not this stack's to close.
	if err := os.Mkdir(now.LogsDir(), passage); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("make the folder of logs (ESB_LOG_DIR): %w", err)
	}
	return ensureFolder(now.LogsDir(), passage, 0, gid)
}

func within(path, dir string) bool { return strings.HasPrefix(path, dir+string(filepath.Separator)) }

func ensureFolder(path string, mode fs.FileMode, uid, gid int) error {
	err := os.MkdirAll(path, mode)
	if err == nil {
		err = os.Lchown(path, uid, gid)
	}
	if err == nil {
		err = os.Chmod(path, mode) // whatever the umask, and whatever it was before
	}
	if err != nil {
		return fmt.Errorf("make the stack's folders: %w", err)
	}
	return nil
}

// user is whom a service runs as, nil for root: the agent, and stores that cannot reach their data as anybody else.
func (s *Stack) user(service string) *process.User {
	now := s.settings
	u := &process.User{UID: now.ServiceUID(service), GID: now.ServiceGID()}
	switch service {
	case native.Gateway:
		u.Capabilities = []uintptr{unix.CAP_NET_BIND_SERVICE}
		if closed := s.closedTo(u); closed != "" {
			u.Capabilities = append(u.Capabilities, unix.CAP_DAC_READ_SEARCH)
			s.once("the gateway may read all files of this machine (CAP_DAC_READ_SEARCH), because %s is closed to its user %d", closed, u.UID)
		}
		return u
	case native.Stores:
		for _, path := range []string{now.BinDir, now.Home, filepath.Dir(now.DataDir), filepath.Dir(now.LogsDir())} {
			if where := unreachable(path, u, now.Home, now.LogsDir()); where != "" {
				s.once("the stores run as root, because %s is closed to their user %d", where, u.UID)
				return nil
			}
		}
		return u
	}
	return nil
}

// once prints a line, the first time.
func (s *Stack) once(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if !slices.Contains(s.said, line) {
		s.said = append(s.said, line)
		s.console.Printf("==> %s", line)
	}
}

// location finds code and layers in functions.yml.
var location = regexp.MustCompile(`(?m)^\s*-?\s*\{?\s*(?:code|location)\s*:\s*["']?([^\s"',}]+)`)

// closedTo names a file that the gateway has to read and whose modes do not let its user in, "" when there is none. What
// access lists say is not looked at.
func (s *Stack) closedTo(u *process.User) string {
	now := s.settings
	paths := []string{now.Home, now.FunctionsConfig, now.RoutingConfig, now.ResourcesConfig}
	for _, v := range s.gatewayFiles() {
		_, path, _ := strings.Cut(v, "=")
		paths = append(paths, path)
	}
	trees := []string{filepath.Dir(now.FunctionsConfig)}
	text, _ := os.ReadFile(now.FunctionsConfig) // the gateway complains about one that cannot be read
	for _, m := range location.FindAllSubmatch(text, -1) {
		if path := string(m[1]); !strings.Contains(path, "://") {
			trees = append(trees, absolute(path, filepath.Dir(now.FunctionsConfig)))
		}
	}
	for _, path := range append(paths, trees...) {
		if where := unreachable(path, u, now.Home); where != "" {
			return where
		}
	}
	for _, tree := range trees {
		found := ""
		_ = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return fs.SkipDir // gone, or the gateway complains
			}
			if s.layout != nil && filepath.Dir(path) == s.layout.Config() && strings.HasPrefix(strings.TrimPrefix(d.Name(), "."), filepath.Base(s.layout.EnvFile())) {
				return nil // it is beside functions.yml, and root's alone; so are copies that editors make of it
			}
			if info, err := d.Info(); err == nil && info.Mode()&(fs.ModeType&^fs.ModeDir) == 0 && !allows(info, u) {
				found = path
				return filepath.SkipAll
			}
			return nil
		})
		if found != "" {
			return found
		}
	}
	return ""
}

// gatewayFiles are the files that somebody has given the gateway, NAME=path, by paths that are good in any folder.
func (s *Stack) gatewayFiles() []string {
	var files []string
	for _, v := range s.environ {
		name, value, _ := strings.Cut(v, "=")
		if slices.Contains([]string{
			"TLS_CERT_FILE", "TLS_KEY_FILE", "ESB_NATS_CREDENTIALS", "ESB_NATS_CA", "ESB_NATS_CERT", "ESB_NATS_KEY", "AGENT_TLS_CERT", "AGENT_TLS_KEY", "AGENT_TLS_CA",
		}, name) && value != "" {
			files = append(files, name+"="+absolute(value, s.settings.Root))
		}
	}
	return files
}

func absolute(path, dir string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// unreachable names the first folder on the way to path, or path itself, that a user cannot enter or read; "" when there is
// none, or path is not there. The folders of own are made passable by whoever asks.
func unreachable(path string, u *process.User, own ...string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	for at := real; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err == nil && !slices.Contains(own, at) && !enters(info, u, at == real && !info.IsDir()) {
			return at
		}
		if at == filepath.Dir(at) {
			return ""
		}
	}
}

// enters says whether a user may pass through a folder, or read a file.
func enters(info fs.FileInfo, u *process.User, file bool) bool {
	if file {
		return permits(info, u, 0o4)
	}
	return permits(info, u, 0o1)
}

// allows says whether a user may read a file, or list and enter a folder.
func allows(info fs.FileInfo, u *process.User) bool {
	if info.IsDir() {
		return permits(info, u, 0o5)
	}
	return permits(info, u, 0o4)
}

func permits(info fs.FileInfo, u *process.User, bits fs.FileMode) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case ok && st.Uid == u.UID:
		mode >>= 6
	case ok && st.Gid == u.GID:
		mode >>= 3
	}
	return mode&bits == bits
}

// settle gives a service, which does not run now, the folders and files of its own, and takes over those of a time when it
// ran as root. It can be repeated from wherever it was broken off.
func (s *Stack) settle(service string, u *process.User) error {
	now := s.settings
	uid, gid := 0, int(now.ServiceGID())
	if u != nil {
		uid = int(u.UID)
	}
	if service == native.Agent {
		return nil
	}
	home := now.ServiceHome(service)
	// The stores read what the gateway says that functions may do, by their group.
	if err := ensureFolder(home, passage, uid, gid); err != nil {
		return err
	}
	if err := ensureFolder(now.ServiceLogDir(service), closed, uid, gid); err != nil {
		return err
	}
	if err := s.handOutFunctionKeys(home, uid, gid); err != nil {
		return err
	}
	if service == native.Stores {
		return settleTree(now.DataDir, uid, gid)
	}
	for _, name := range gatewayState() {
		from, to := filepath.Join(now.Home, name), filepath.Join(home, name)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if _, err := os.Lstat(to); err == nil {
			continue // it has its own already
		}
		// Owned before it is moved: what is moved is whole.
		if err := chownTree(from, uid, gid); err != nil {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("move the gateway's state into its own folder: %w", err)
		}
	}
	return nil
}

// handOutFunctionKeys puts a copy of the secret of the functions' keys where a service alone reads it.
func (s *Stack) handOutFunctionKeys(home string, uid, gid int) error {
	source := filepath.Join(s.settings.Home, functionKeys)
	for _, v := range s.environ {
		if path, ok := strings.CutPrefix(v, "FUNCTION_KEYS_FILE="); ok && path != "" {
			source = absolute(path, s.settings.Root)
		}
	}
	secret, err := secretfile.Open(source)
	if err != nil {
		return fmt.Errorf("the secret of the functions' keys: %w", err)
	}
	path := filepath.Join(home, functionKeys)
	if has, err := secretfile.Read(path); err == nil && has == secret && owner(path) == uid {
		return nil
	}
	temp, err := os.CreateTemp(home, "."+functionKeys+".") // mode 0600
	if err != nil {
		return fmt.Errorf("hand out the secret of the functions' keys: %w", err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.WriteString(secret + "\n")
	if err := errors.Join(err, temp.Chown(uid, gid), temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("hand out the secret of the functions' keys: %w", err)
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return fmt.Errorf("hand out the secret of the functions' keys: %w", err)
	}
	return nil
}

func owner(path string) int {
	info, err := os.Lstat(path)
	if err != nil {
		return -1
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// settleTree makes a folder and all in it a service's. The folder itself comes last, and says that the rest is done.
func settleTree(dir string, uid, gid int) error {
	switch owner(dir) {
	case -1:
		return ensureFolder(dir, closed, uid, gid)
	case uid:
		return nil
	}
	if err := chownTree(dir, uid, gid); err != nil {
		return err
	}
	return ensureFolder(dir, closed, uid, gid)
}

// chownTree gives all that is in a folder, or one file, to a user. It follows no link, also none that is put there meanwhile.
func chownTree(path string, uid, gid int) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("give %s to its service: %w", path, err)
	}
	defer func() { _ = root.Close() }()
	var folders []string
	err = fs.WalkDir(root.FS(), filepath.Base(path), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			folders = append(folders, name)
			return nil
		}
		return root.Lchown(name, uid, gid)
	})
	for _, name := range slices.Backward(folders) {
		if err == nil {
			err = root.Lchown(name, uid, gid)
		}
	}
	if err != nil {
		return fmt.Errorf("give %s to its service: %w", path, err)
	}
	return nil
}

// serviceEnv is what a service with a user of its own is told otherwise than the others.
func (s *Stack) serviceEnv(service string) []string {
	now := s.settings
	home := now.ServiceHome(service)
	switch service {
	case native.Agent:
		return []string{fmt.Sprintf("GATEWAY_UID=%d", now.ServiceUID(native.Gateway))}
	case native.Gateway:
		env := s.gatewayFiles()
		if s.runtimes != "" && !slices.ContainsFunc(s.environ, func(v string) bool {
			name, value, _ := strings.Cut(v, "=")
			return name == "FUNCTION_RUNTIMES" && strings.TrimSpace(value) != ""
		}) {
			env = append(env, "FUNCTION_RUNTIMES="+s.runtimes)
		}
		return append(env,
			"GATEWAY_HOME="+home, "ESB_LOG_DIR="+now.ServiceLogDir(service), "FUNCTION_KEYS_FILE="+filepath.Join(home, functionKeys),
			"FUNCTION_ACCESS_FILE="+filepath.Join(home, "function-access.json"))
	}
	return []string{
		"ESB_LOG_DIR=" + now.ServiceLogDir(service), "FUNCTION_KEYS_FILE=" + filepath.Join(home, functionKeys),
		"FUNCTION_ACCESS_FILE=" + filepath.Join(now.ServiceHome(native.Gateway), "function-access.json"),
	}
}
