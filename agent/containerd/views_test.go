package containerd

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestViews_OnesThatContainersHave_AreKept(t *testing.T) {
	v := &views{of: map[string]*view{}}
	assert.Nil(t, v.hold("base"), "nothing is mounted yet")
	v.mounted("base", layers{"/l": "1"})
	assert.True(t, v.alone("base"))
	assert.NotNil(t, v.hold("base"))
	assert.False(t, v.alone("base"))
	assert.True(t, v.keeps(viewKey("base")))
	assert.False(t, v.keeps("base"), "that is the image's")
	v.release("base")
	assert.Empty(t, v.forget(0), "one has it")
	v.release("base")
	v.release("")
	v.release("never held")
	assert.Empty(t, v.forget(time.Hour), "it may be wanted again")
	assert.Equal(t, []string{"base"}, v.forget(0))
	assert.False(t, v.keeps(viewKey("base")))
	assert.Nil(t, v.hold("base"), "it is to be mounted anew")
}

func TestLayers_OfAStoreThatWasMadeAgain_AreOthers(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	for _, d := range []string{one, two} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	l := layersOf(mount.Mount{Options: []string{"index=off", "lowerdir=" + two + ":" + one}})
	assert.True(t, l.unchanged())
	require.NoError(t, os.WriteFile(filepath.Join(one, "file"), nil, 0o644))
	assert.True(t, l.unchanged())
	require.NoError(t, os.Rename(one, one+"-old"))
	assert.False(t, l.unchanged())
	require.NoError(t, os.Mkdir(one, 0o755))
	assert.False(t, l.unchanged(), "it has its name alone")
}
