package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
)

// workerPort is lambda-init's, the one beside 9001 that a function cannot have.
const workerPort = "27182"

// soReusePort is SO_REUSEPORT, which package syscall does not name.
const soReusePort = 15

// listen tries the ports that programs take by habit, and lambda-init's own in every way that there is.
func listen() (notes []string) {
	for _, port := range []string{"8080", "8000", "3000", "5000", "8081", "8443", "9000", workerPort} {
		for _, address := range []string{":", "0.0.0.0:", "127.0.0.1:"} {
			for _, option := range []int{0, syscall.SO_REUSEADDR, soReusePort} {
				notes = append(notes, fmt.Sprintf("listen %s: %t", port, canListen(address+port, option)))
			}
		}
	}
	return notes
}

func canListen(address string, option int) bool {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if option != 0 {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, option, 1)
			}
		})
	}}
	listener, err := config.Listen(context.Background(), "tcp", address)
	if err == nil {
		_ = listener.Close()
	}
	return err == nil
}

// whoAmI is what programs that ask the system are told.
func whoAmI() []string {
	passwd, _ := os.ReadFile("/etc/passwd")
	folder, _ := os.Getwd()
	groups, _ := os.Getgroups()
	return []string{fmt.Sprintf("uid %d gid %d groups %v", os.Getuid(), os.Getgid(), groups), "folder " + folder, "passwd " + string(passwd)}
}
