package connlimit

import (
	"net/netip"
	"syscall"
)

const (
	// most is the default of Bounds.Total where memory and descriptors are plenty.
	most = 8192
	// least keeps a program usable whose limits are very low.
	least = 64
	// heldBytes is about what a connection with half a request holds in net/http (measured: 27 KB, TLS some more).
	heldBytes = 40 << 10
)

// Defaults returns bounds that leave a program at least half of its descriptors, for files, workers and other listeners,
// and seven eighths of its memory in bytes. One address gets a quarter. functions is the network of a box's functions,
// which gets a quarter in all and a thirty-second for each address; the zero Prefix for none.
func Defaults(memory int64, functions netip.Prefix) Bounds {
	total := most
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur/2 < uint64(total) {
		total = int(files.Cur / 2) //nolint:gosec // below 8192
	}
	if memory > 0 {
		total = int(min(int64(total), memory/8/heldBytes))
	}
	return Split(max(total, least), functions)
}

// Split returns bounds of total connections with the shares of Defaults.
func Split(total int, functions netip.Prefix) Bounds {
	b := Bounds{Total: total, PerAddress: max(total/4, 16)}
	if functions.IsValid() {
		b.Networks = []Network{{Name: "functions", Prefix: functions, Total: max(total/4, 16), PerAddress: max(total/32, 16)}}
	}
	return b
}
