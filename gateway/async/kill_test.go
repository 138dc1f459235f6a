package async

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// The variables of the process that is killed: its folder, and the name of its round. Without a round it accepts nothing
// and ends when the queue is empty.
const (
	victimDir   = "ESB_TEST_QUEUE_DIR"
	victimRound = "ESB_TEST_QUEUE_ROUND"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		if err := victim(dir, os.Getenv(victimRound)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// victim prints every event that was accepted, and notes every run in a file.
func victim(dir, round string) error {
	runs, err := os.OpenFile(filepath.Join(dir, "runs"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	inv := newInvoker()
	inv.set("f", func(_ context.Context, i gateway.Invocation, _ int) (gateway.Result, error) {
		_, err := runs.WriteString(i.RequestID + "\n")
		return gateway.Result{}, err
	})
	ctx := context.Background()
	q, err := Open(ctx, options(filepath.Join(dir, "async"), inv))
	if err != nil {
		return err
	}
	f := function("f")
	apply(q, f)
	if round == "" {
		for q.bytes.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
		return q.Close(ctx)
	}
	var n atomic.Int64
	var out sync.Mutex
	for range 8 {
		go func() {
			for {
				id := fmt.Sprintf("%s-%d", round, n.Add(1))
				if q.Enqueue(ctx, f, gateway.Invocation{RequestID: id, Payload: []byte(strings.Repeat("x", 200))}) == nil {
					out.Lock()
					fmt.Println(id)
					out.Unlock()
				}
			}
		}()
	}
	select {} // until it is killed
}

func TestQueue_Killed_LosesNothing(t *testing.T) {
	dir := t.TempDir()
	start := func(round string) (*exec.Cmd, *bufio.Scanner) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimDir+"="+dir, victimRound+"="+round)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd, bufio.NewScanner(out)
	}
	accepted := map[string]bool{}
	for round := range 5 {
		cmd, out := start(fmt.Sprint("round", round))
		for n := 0; out.Scan(); n++ {
			accepted[out.Text()] = true
			if n == 200+50*round {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		assert.Error(t, cmd.Wait(), "it was killed")
	}
	cmd, out := start("")
	for out.Scan() { // prints nothing
	}
	require.NoError(t, cmd.Wait())

	data, err := os.ReadFile(filepath.Join(dir, "runs"))
	require.NoError(t, err)
	ran := map[string]int{}
	for _, id := range strings.Fields(string(data)) {
		ran[id]++
	}
	twice, lost := 0, 0
	for id := range accepted {
		twice += max(0, ran[id]-1)
		if ran[id] == 0 {
			lost++
		}
	}
	t.Logf("accepted %d, lost %d, twice %d", len(accepted), lost, twice)
	assert.Greater(t, len(accepted), 1000)
	assert.Zero(t, lost)
}
