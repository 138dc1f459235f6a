package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/supervise"
)

const (
	// lockTimeout is how long a former process may take to end: one whose supervisor was killed stops by itself.
	lockTimeout = supervise.DefaultStopTimeout + 5*time.Second
	lockPoll    = 50 * time.Millisecond
)

// lockData takes the lock of a data folder. It belongs to whoever has the file, this process or one that inherits it.
func lockData(ctx context.Context, dir string) (*os.File, error) {
	file, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the data: %w", err)
	}
	waiting, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	ticker := time.NewTicker(lockPoll)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		select {
		case <-waiting.Done():
			_ = file.Close()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("another process works on the data in %s (lsof %s.lock shows it): stop it, or set ESB_DATA_DIR to another folder", dir, dir)
		case <-ticker.C:
		}
	}
}
