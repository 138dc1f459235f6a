// Package freeport finds ports for tests of programs that must be told where to listen.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports lie below those that the kernel gives to outgoing connections (ip_local_port_range: 32768 and up), or one could be
// taken that way before the program listens on it.
const lowest, highest, tries = 15000, 32000, 1000

// Find returns n ports of 127.0.0.1 that nobody listens on. All are held until all are found, so that they differ.
func Find(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range tries {
		if len(ports) == n {
			return ports, nil
		}
		port := lowest + rand.IntN(highest-lowest)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, lowest, highest)
}
