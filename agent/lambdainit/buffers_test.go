package lambdainit_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// heapOf is how much of its heap a Go program has in memory, in bytes. Under the race detector that is what the kernel says of the
// addresses that its heap is at: the detector's own memory grows with every byte that is looked at. Without, the heap may be
// anywhere, and the whole memory is taken.
func heapOf(t *testing.T, pid int) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	heap, all, inHeap := 0, 0, false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if first, _, ok := strings.Cut(line, "-"); ok && !strings.Contains(first, ":") {
			inHeap = strings.HasPrefix(first, "c0") && len(first) == len("c000000000")
		}
		if rss, ok := strings.CutPrefix(line, "Rss:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rss)[0])
			require.NoError(t, err)
			all += kb << 10
			if inHeap {
				heap += kb << 10
			}
		}
	}
	require.Positive(t, all)
	if heap == 0 {
		return all
	}
	return heap
}

// TestInvoke_LargePayloads_AreNotKept: what lambda-init holds is missing in the function's memory, and counts in Max Memory Used.
func TestInvoke_LargePayloads_AreNotKept(t *testing.T) {
	b := mustOpenBox(t)
	for range 3 {
		b.invoke("small", order{Do: "echo"}).reply(t)
	}
	before := heapOf(t, b.cmd.Process.Pid)
	for range 3 {
		r := b.invoke("large", order{Do: "big", N: 5_900_000, Text: strings.Repeat("x", 5_800_000)})
		require.NoError(t, r.Err)
		require.Len(t, r.Body, 5_900_000)
	}
	b.invoke("small", order{Do: "echo"}).reply(t) // behind the last one's end
	more := heapOf(t, b.cmd.Process.Pid) - before
	t.Logf("%d KB more than before", more>>10)
	assert.Less(t, more, 4<<20)
}
