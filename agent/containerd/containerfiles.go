package containerd

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/hostfiles"
)

func (l *launch) makeFiles(context.Context) error {
	dir := l.r.files(l.record.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	ip, err := netip.ParseAddr(l.record.IP)
	if err != nil {
		return err
	}
	hosts := hostfiles.Hosts(hostname(l.record.ID), ip, l.r.network.Gateway())
	if err := os.WriteFile(filepath.Join(dir, "hosts"), hosts, 0o644); err != nil {
		return err
	}
	create := l.r.logs.Create
	if l.record.parked {
		create = l.r.logs.CreateWaiting
	}
	if err := create(l.record.ID, int(l.record.firstID)); err != nil {
		return err
	}
	if l.spec.Interface != agent.Supervisor {
		return nil
	}
	// What the container sees of it: the socket, which is lambda-init's alone.
	if err := os.Mkdir(l.r.notifyDir(l.record.ID), 0o711); err != nil {
		return err
	}
	var once sync.Once
	l.state.socket, err = l.r.listen(l.record, func() { once.Do(func() { close(l.ready) }) })
	return err
}

// logFile is where its output goes: no log of a container for as long as it is nobody's.
func (l *launch) logFile() string {
	if l.record.parked {
		return l.r.logs.Waiting(l.record.ID)
	}
	return l.r.logs.File(l.record.ID)
}

// meminfo returns the file that is /proc/meminfo in containers of so much memory. It is made once.
func (r *Runtime) meminfo(memoryMB int) (string, error) {
	file := filepath.Join(r.filesDir(), fmt.Sprintf("meminfo-%d", memoryMB))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	fresh := file + "-" + randomHex(suffixBytes)
	err := os.WriteFile(fresh, hostfiles.Meminfo(memoryMB), 0o644)
	if err == nil {
		err = os.Rename(fresh, file)
	}
	if err != nil {
		return "", fmt.Errorf("write what containers see of their memory: %w", err)
	}
	return file, nil
}

// hostname is short: the kernel takes 64 characters, a container's id may have more.
func hostname(id string) string { return "lambda-" + shortID(id) }
