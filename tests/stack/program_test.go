package stack

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGoBuild_EachGetsACopyOfItsOwn(t *testing.T) {
	root, err := RepositoryRoot()
	require.NoError(t, err)
	dir := t.TempDir()
	var built sync.WaitGroup
	outs := make([]string, 3)
	for i, name := range []string{"a", "b", "c"} {
		outs[i] = filepath.Join(dir, name)
		built.Go(func() {
			text, err := goBuild(root, outs[i], "./tests/skips")
			assert.NoError(t, err, text)
		})
	}
	built.Wait()
	first, err := os.ReadFile(outs[0])
	require.NoError(t, err)
	for _, out := range outs {
		data, err := os.ReadFile(out)
		require.NoError(t, err)
		assert.Equal(t, len(first), len(data))
		said, err := exec.Command(out).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "it wants a file: %s", said)
		assert.NotEmpty(t, said)
	}
	require.NoError(t, os.WriteFile(outs[0], nil, 0o600), "a copy is the test's own")
	text, err := goBuild(root, outs[0], "./tests/skips")
	require.NoError(t, err, text)
	info, err := os.Stat(outs[0])
	require.NoError(t, err)
	assert.EqualValues(t, len(first), info.Size())
	assert.EqualValues(t, 0o755, info.Mode().Perm())

	text, err = goBuild(root, outs[0], "./tests/nothing")
	require.Error(t, err)
	assert.Contains(t, text, "nothing")
}
