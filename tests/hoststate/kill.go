package hoststate

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// KillAll ends every process of the box at once, as a power cut does, and returns how many there were.
func KillAll(home, bridge string) (int, error) {
	// Not by the programs' folder: other boxes of this repository have the same.
	all, err := processes(home, filepath.Join(home, "none"), bridge)
	if err != nil {
		return 0, err
	}
	for _, process := range all {
		pid, _, _ := strings.Cut(process, " ")
		number, err := strconv.Atoi(pid)
		if err != nil {
			return 0, err
		}
		if err := syscall.Kill(number, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, fmt.Errorf("kill %s: %w", process, err)
		}
	}
	return len(all), nil
}
