package code

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
)

// TestStore_TreeThatCannotBeRead_IsMadeAnewBeside: a function must not be without its code because a newer esb was here, or its description
// is damaged, and containers that have the tree must not lose it.
func TestStore_TreeThatCannotBeRead_IsMadeAnewBeside(t *testing.T) {
	for name, text := range map[string]string{"of a newer esb": `{"version": 2, "size": {}}`, "damaged": `{"byt`} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			objects := &fakeObjects{}
			code := agent.FunctionCode{Source: objects.put("f.zip", zipOf(t, file{"a", 0o644, "1"}))}
			s := mustOpen(t, dir, 1<<20, objects)
			l, err := s.Get(t.Context(), code)
			require.NoError(t, err)
			l.Release()
			id, tree := l.IDs[0], filepath.Dir(l.Task)
			require.NoError(t, s.Close())
			require.NoError(t, os.WriteFile(filepath.Join(tree, "info.json"), []byte(text), 0o644))

			s = mustOpen(t, dir, 1<<20, objects)
			l, err = s.Get(t.Context(), code)
			require.NoError(t, err)
			assert.Equal(t, []string{"a=1"}, contents(t, l.Task))
			l.Release()
			beside := func() []string {
				found, err := filepath.Glob(s.path("trees", id+".*", "root", "a"))
				require.NoError(t, err)
				return found
			}
			require.Len(t, beside(), 1)
			require.NoError(t, s.Prune(func(used string) bool { return used == id }))
			assert.Len(t, beside(), 1, "a container has it")
			require.NoError(t, s.Prune(func(string) bool { return false }))
			assert.Empty(t, beside())
			assert.DirExists(t, s.root(id))
		})
	}
}

// TestOpen_TreeOfANewerEsb_Stays: it may be in use, as far as this program can say.
func TestOpen_TreeOfANewerEsb_Stays(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, 0, nil)
	require.NoError(t, s.Close())
	for name, text := range map[string]string{"newer": `{"version": 2}`, "boot": `{"version": 2, "boot": "` + s.boot + `"}`, "earlier": `{"version": 2, "boot": "x"}`} {
		mustWrite(t, s.path("trees", name, "root", "a"), nil)
		mustWrite(t, s.path("trees", name, "info.json"), []byte(text))
	}
	s = mustOpen(t, dir, 0, nil)
	assert.DirExists(t, s.root("newer"))
	assert.DirExists(t, s.root("boot"))
	assert.NoDirExists(t, s.root("earlier"), "it was not on the disk when the machine went down")
	require.NoError(t, s.Prune(func(id string) bool { return id == "newer" || id == "boot" }))
	assert.DirExists(t, s.root("newer"), "a container has it")
}
