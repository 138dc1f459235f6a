package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Without a memory limit "oom" would take the machine's memory: it gives up at this multiple of the function's size.
const (
	budgetFactor    = 3
	defaultMemoryMB = 128
	chunkBytes      = 8 << 20
)

// segfault ends the process by SIGSEGV. It returns only when that could not be done.
func segfault() error {
	// Go's runtime turns an invalid access into a panic, which aws-lambda-go would report politely: the default
	// action has to be restored behind its back. This is the kernel's struct sigaction with SIG_DFL, 8-byte mask last.
	var action [4]uint64
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGSEGV),
		uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
		return fmt.Errorf("restore the default action of SIGSEGV: %w", errno)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGSEGV); err != nil {
		return fmt.Errorf("send SIGSEGV: %w", err)
	}
	select {} // the signal may arrive at another thread
}

// memoryBudget is how many bytes exhaustMemory may take at most, by the function's memory size in MB.
func memoryBudget(memorySize string) int {
	mb, err := strconv.Atoi(memorySize)
	if err != nil || mb <= 0 {
		mb = defaultMemoryMB
	}
	return budgetFactor * mb << 20
}

// exhaustMemory allocates and touches memory until the kernel ends the process; it returns an error when the budget is
// used up and nothing has happened, which means that no memory limit is in force.
func exhaustMemory(budget int) error {
	var held [][]byte
	for taken := 0; taken < budget; taken += chunkBytes {
		chunk := make([]byte, chunkBytes)
		for i := 0; i < len(chunk); i += os.Getpagesize() {
			chunk[i] = 1
		}
		held = append(held, chunk)
	}
	return fmt.Errorf("took %d MB in %d pieces and was not killed: the container has no memory limit", budget>>20, len(held))
}
