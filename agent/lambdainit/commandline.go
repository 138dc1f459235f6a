package lambdainit

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setCommandLine has /proc/<pid>/cmdline of this process, which everybody in the container may read, say args, as if it had been started
// with them. Where the kernel cannot do that (CONFIG_CHECKPOINT_RESTORE), the line keeps its length.
func setCommandLine(args []string) {
	text := []byte(strings.Join(args, "\x00") + "\x00")
	m, err := readMemoryMap()
	if err == nil {
		err = m.setArguments(text)
	}
	if err != nil {
		overwriteArguments(text)
	}
}

// memoryMap is the kernel's struct prctl_mm_map (linux/prctl.h).
type memoryMap struct {
	startCode, endCode, startData, endData, startBrk, brk, startStack uint64
	argStart, argEnd, envStart, envEnd                                uint64
	auxv                                                              uint64
	auxvSize, exeFd                                                   uint32
}

// readMemoryMap reads what PR_SET_MM_MAP sets all of, from proc_pid_stat(5).
func readMemoryMap() (memoryMap, error) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return memoryMap{}, err
	}
	// The name, the second field, is in parentheses and may have anything in it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	field := func(n int) (v uint64) {
		if err == nil && n-3 < len(fields) {
			v, err = strconv.ParseUint(fields[n-3], 10, 64)
		}
		return v
	}
	brk, _, _ := unix.Syscall(unix.SYS_BRK, 0, 0, 0)
	m := memoryMap{
		startCode: field(26), endCode: field(27), startStack: field(28), startData: field(45), endData: field(46), startBrk: field(47), brk: uint64(brk),
		argStart: field(48), argEnd: field(49), envStart: field(50), envEnd: field(51), exeFd: ^uint32(0),
	}
	return m, err
}

// setArguments makes text the command line, and leaves no environment of the start. It needs no privilege (prctl(2), PR_SET_MM_MAP).
func (m memoryMap) setArguments(text []byte) error {
	// The kernel shows private memory alone. It is never given back.
	memory, err := unix.Mmap(-1, 0, len(text), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	copy(memory, text)
	m.argStart = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(memory))))
	m.argEnd = m.argStart + uint64(len(text))
	m.envStart, m.envEnd = m.argEnd, m.argEnd
	_, _, errno := unix.Syscall6(unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_MAP, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), 0, 0)
	if errno != 0 {
		return fmt.Errorf("prctl: %w", errno)
	}
	return nil
}

// overwriteArguments writes text, as far as there is room, where the arguments of the start are: one after the other, and os.Args has
// no copies of them.
func overwriteArguments(text []byte) {
	if len(os.Args) == 0 || os.Args[0] == "" {
		return
	}
	size := 0
	for _, a := range os.Args {
		size += len(a) + 1
	}
	place := unsafe.Slice(unsafe.StringData(os.Args[0]), size)
	for i, a := range os.Args {
		os.Args[i] = strings.Clone(a)
	}
	clear(place)
	copy(place[:size-1], text) // the last one ends the line
}
