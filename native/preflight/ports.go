package preflight

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/native"
)

// Listener is an address that a service is going to listen on.
type Listener struct {
	// Addr is host:port.
	Addr string
	// Setting is the variable that changes it.
	Setting string
}

// checkListeners tries to listen on each address. One whose process this stack owns is free as far as that goes.
func checkListeners(listeners []Listener, owns func(pid int) bool) []error {
	var errs []error
	for _, l := range listeners {
		err := listen(l.Addr)
		if err == nil {
			continue
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			errs = append(errs, &native.Problem{What: fmt.Sprintf("cannot listen on %s (%v)", l.Addr, err), Do: "Set " + l.Setting + " to an address of this machine."})
			continue
		}
		busy, pid, name := findHolder(l.Addr)
		if !busy || pid != 0 && owns != nil && owns(pid) {
			continue
		}
		who := "by a process that could not be found"
		if pid != 0 {
			who = fmt.Sprintf("by process %d (%s)", pid, name)
		}
		errs = append(errs, &native.Problem{
			What: fmt.Sprintf("%s is in use, %s", l.Addr, who),
			Do:   "Stop that process, or set " + l.Setting + " to another address.",
		})
	}
	return errs
}

// listen opens and closes a listener. The box's own address may not exist yet, so any address may be bound.
func listen(addr string) error {
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var err error
		ctlErr := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1) })
		return errors.Join(ctlErr, err)
	}}
	ln, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	return ln.Close()
}

// endLimit is how long a port without a process is waited for. One that was killed is not to be seen any more while its last
// threads still have its sockets, and on a busy machine they need time to end.
const endLimit = 5 * time.Second

// findHolder looks for the process that listens at addr until it is found, or addr is free. Nobody is found at once where the
// kernel's tables, which are read piece by piece, miss a line that is there.
func findHolder(addr string) (busy bool, pid int, name string) {
	for limit := time.Now().Add(endLimit); ; time.Sleep(50 * time.Millisecond) {
		if pid, name = holder(addr); pid != 0 {
			return true, pid, name
		}
		if !errors.Is(listen(addr), syscall.EADDRINUSE) {
			return false, 0, ""
		}
		if !time.Now().Before(limit) {
			return true, 0, ""
		}
	}
}

// holder finds the process that listens on the port of addr, or 0.
func holder(addr string) (pid int, name string) {
	_, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, ""
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return 0, ""
	}
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, inode := range listening(string(data), uint16(port)) {
			inodes[inode] = true
		}
	}
	if len(inodes) == 0 {
		return 0, ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		inode, ok := strings.CutPrefix(link, "socket:[")
		if !ok || !inodes[strings.TrimSuffix(inode, "]")] {
			continue
		}
		proc := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil {
			continue
		}
		comm, _ := os.ReadFile(filepath.Join(proc, "comm"))
		return pid, strings.TrimSpace(string(comm))
	}
	return 0, ""
}

// listening reads the socket inodes of listeners on port from a table like /proc/net/tcp: field 2 is address:port
// in hexadecimal, field 4 the state (0A is LISTEN), field 10 the inode (proc_net_tcp(5)).
func listening(table string, port uint16) []string {
	var inodes []string
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[3] != "0A" {
			continue
		}
		_, p, ok := strings.Cut(fields[1], ":")
		raw, err := hex.DecodeString(p)
		if !ok || err != nil || len(raw) != 2 || uint16(raw[0])<<8|uint16(raw[1]) != port {
			continue
		}
		inodes = append(inodes, fields[9])
	}
	return inodes
}
