package lambdainit

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// tmpDir is the one place that a function can write to.
const tmpDir = "/tmp"

// EnterTmp goes to the working folder once more when that is in /tmp: the agent has mounted /tmp after this process had
// been put there.
func EnterTmp() error {
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("which is the working folder: %w", err)
	}
	if dir != tmpDir && !strings.HasPrefix(dir, tmpDir+"/") {
		return nil
	}
	return enter(dir)
}

// tmpInMemory returns how many bytes of a folder's file system are in memory, 0 where it is a disk's.
func tmpInMemory(dir string) uint64 {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || fs.Type != tmpfsMagic || fs.Bsize <= 0 {
		return 0
	}
	return (fs.Blocks - fs.Bfree) * uint64(fs.Bsize)
}

// tmpfsMagic is the type of a tmpfs (statfs(2)).
const tmpfsMagic = 0x01021994
