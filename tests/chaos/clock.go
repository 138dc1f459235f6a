package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// guardVariable has this program guard the clock in place of running tests: the difference that the clock must be brought back to.
	guardVariable = "ESB_CHAOS_CLOCK_GUARD"
	// guardLimit is when the guard sets the clock right whatever becomes of the test.
	guardLimit = 30 * time.Minute
	// clockSlack is what the clock may be off without being set: nobody reads two clocks at the same moment.
	clockSlack = time.Second
)

// errClockIsFixed is of a machine that does not let its clock be set: a container without CAP_SYS_TIME, or a kernel that has none.
var errClockIsFixed = errors.New("this machine does not let its clock be set")

// machineClock is CLOCK_REALTIME of the whole machine, which has but one, also for namespaces of time. While it is held another process
// waits for the end of this one, however it ends, and sets the clock right then.
type machineClock struct {
	// zero is how far CLOCK_REALTIME was before CLOCK_BOOTTIME, which nobody can set, when the clock was right.
	zero  time.Duration
	guard *exec.Cmd
	// held keeps the guard waiting.
	held io.Closer
}

// clockDifference is how far CLOCK_REALTIME is before CLOCK_BOOTTIME.
func clockDifference() (time.Duration, error) {
	var before, clock, after unix.Timespec
	for _, read := range []struct {
		id int32
		to *unix.Timespec
	}{{unix.CLOCK_BOOTTIME, &before}, {unix.CLOCK_REALTIME, &clock}, {unix.CLOCK_BOOTTIME, &after}} {
		if err := unix.ClockGettime(read.id, read.to); err != nil {
			return 0, fmt.Errorf("read the clock %d: %w", read.id, err)
		}
	}
	return time.Duration(clock.Nano() - (before.Nano()+after.Nano())/2), nil
}

// setClockDifference sets CLOCK_REALTIME.
func setClockDifference(d time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return fmt.Errorf("read the clock %d: %w", unix.CLOCK_BOOTTIME, err)
	}
	to := unix.NsecToTimespec(now.Nano() + d.Nanoseconds())
	err := unix.ClockSettime(unix.CLOCK_REALTIME, &to)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: %w", errClockIsFixed, err)
	}
	if err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// holdClock takes the clock. Release it. errClockIsFixed is told before anything has been set.
func holdClock() (*machineClock, error) {
	zero, err := clockDifference()
	if err != nil {
		return nil, err
	}
	// To what it is.
	if err := setClockDifference(zero); err != nil {
		return nil, err
	}
	return guarded(zero)
}

// guarded starts the guard of a clock, and sets nothing.
func guarded(zero time.Duration) (c *machineClock, err error) {
	c = &machineClock{zero: zero, guard: exec.Command("/proc/self/exe")}
	c.guard.Env = []string{guardVariable + "=" + strconv.FormatInt(zero.Nanoseconds(), 10)}
	// What is sent to the test's group, as by a terminal, is not for it.
	c.guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.held, err = c.guard.StdinPipe(); err != nil {
		return nil, err
	}
	said, err := c.guard.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.guard.Start(); err != nil {
		return nil, fmt.Errorf("start the guard of the clock: %w", err)
	}
	// It must be there before the clock is set.
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("the guard of the clock said %q: %w", line, err), c.leave())
	}
	return c, nil
}

// set has the clock be off by a time, whatever it was before.
func (c *machineClock) set(by time.Duration) error { return setClockDifference(c.zero + by) }

// off is how far it is off.
func (c *machineClock) off() (time.Duration, error) {
	d, err := clockDifference()
	return d - c.zero, err
}

// release sets the clock right and waits until its guard has ended.
func (c *machineClock) release() error { return errors.Join(c.set(0), c.leave()) }

// leave does as the end of this process would: it leaves the clock to its guard, and waits until that has ended.
func (c *machineClock) leave() error { return errors.Join(c.held.Close(), c.guard.Wait()) }

// guardClock is the guard: it waits for the end of its input, and sets the clock right if it is not.
func guardClock(difference string) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	ns, err := strconv.ParseInt(difference, 10, 64)
	if err != nil {
		return fmt.Errorf("%s: must be nanoseconds, got %q", guardVariable, difference)
	}
	zero := time.Duration(ns)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	select {
	case <-ended:
	case <-time.After(guardLimit): // by the monotonic clock
	}
	now, err := clockDifference()
	if err != nil || (now-zero).Abs() <= clockSlack {
		return err
	}
	return setClockDifference(zero)
}
