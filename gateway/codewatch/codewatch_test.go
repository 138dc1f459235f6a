package codewatch_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/codewatch"
)

const patience = 60 * time.Second

// fakeObjects is an S3 store that can be away.
type fakeObjects struct {
	mu    sync.Mutex
	etags map[string]string
}

func (f *fakeObjects) set(object, etag string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.etags == nil {
		f.etags = map[string]string{}
	}
	f.etags[object] = etag
}

func (f *fakeObjects) ETag(_ context.Context, bucket, key string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch etag := f.etags[bucket+"/"+key]; etag {
	case "":
	case "gone":
		return "", fs.ErrNotExist
	default:
		return etag, nil
	}
	return "", errors.New("the store is away")
}

// pools takes what is applied.
type pools struct {
	mu    sync.Mutex
	last  map[string]*gateway.Function
	times int
}

func (p *pools) apply(functions map[string]*gateway.Function) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = functions
	p.times++
}

func (p *pools) get(name string) *gateway.Function {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last[name]
}

func (p *pools) applied() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.times
}

func mustOpen(t *testing.T, objects codewatch.Objects, poll time.Duration) (*codewatch.Watcher, *pools) {
	t.Helper()
	p := &pools{}
	w := codewatch.Open(codewatch.Options{Poll: poll, Objects: objects, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, p.apply)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w, p
}

// functions has one with code there, its layers, and one whose image has its code.
func functions(code string, layers ...string) map[string]*gateway.Function {
	c := &gateway.FunctionCode{Source: gateway.CodeSource{Location: code}, Runtime: "python3.11", Handler: "app.handler"}
	for _, l := range layers {
		c.Layers = append(c.Layers, gateway.CodeSource{Location: l})
	}
	return map[string]*gateway.Function{
		"zip": {Name: "zip", Code: c, Generation: "g1"}, "image": {Name: "image", Image: "x", Generation: "g2"},
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

func eventually(t *testing.T, condition func() bool, what string) {
	t.Helper()
	require.Eventually(t, condition, patience, 10*time.Millisecond, what)
}

func TestWatcher_LocalCodeChanges_MakesANewGeneration(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir string){
		"a file of the folder":   func(t *testing.T, dir string) { write(t, filepath.Join(dir, "code/app.py"), "2") },
		"a file in a new folder": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "code/new/deep/x.py"), "2") },
		"execute bit":            func(t *testing.T, dir string) { require.NoError(t, os.Chmod(filepath.Join(dir, "code/app.py"), 0o755)) },
		"a file that goes":       func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "code/app.py"))) },
		"the folder replaced": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "next/app.py"), "2")
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "code")))
			require.NoError(t, os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "code")))
		},
		"the zip file of a layer replaced": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "layer.new"), "other")
			require.NoError(t, os.Rename(filepath.Join(dir, "layer.new"), filepath.Join(dir, "layer.zip")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "code/app.py"), "1")
			write(t, filepath.Join(dir, "layer.zip"), "zip")
			w, p := mustOpen(t, nil, time.Hour) // so that only what the system tells counts
			w.Set(functions(filepath.Join(dir, "code"), filepath.Join(dir, "layer.zip")))
			first := p.get("zip")
			assert.NotEqual(t, "g1", first.Generation)
			assert.True(t, strings.HasPrefix(first.Code.Source.Version, "sha256:"))
			assert.True(t, strings.HasPrefix(first.Code.Layers[0].Version, "sha256:"))
			assert.Equal(t, "g2", p.get("image").Generation)

			change(t, dir)
			eventually(t, func() bool { return p.get("zip").Generation != first.Generation }, "a new generation")
			assert.Equal(t, "g2", p.get("image").Generation)
		})
	}
}

func TestWatcher_NothingTold_FindsChangesByLooking(t *testing.T) {
	dir := t.TempDir()
	code := filepath.Join(dir, "a/code")
	write(t, filepath.Join(dir, "real/app.py"), "1")
	require.NoError(t, os.MkdirAll(filepath.Dir(code), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(dir, "real"), code))
	w, p := mustOpen(t, nil, 50*time.Millisecond)
	w.Set(functions(code))
	first := p.get("zip").Generation
	// No folder that is watched sees this: "real" is, but not the one around it.
	write(t, filepath.Join(dir, "next/app.py"), "2")
	require.NoError(t, os.Rename(filepath.Join(dir, "real"), filepath.Join(dir, "old")))
	require.NoError(t, os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "real")))
	eventually(t, func() bool { return p.get("zip").Generation != first }, "a new generation")
}

func TestWatcher_SameContentTouched_KeepsTheGeneration(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "app.py"), "1")
	objects := &fakeObjects{}
	objects.set("b/k.zip", "1")
	w, p := mustOpen(t, objects, 50*time.Millisecond)
	w.Set(functions(dir, "s3://b/k.zip"))
	first := p.get("zip").Code.Source.Version
	// In place: between the two steps of os.WriteFile the file is empty, and may be looked at.
	file, err := os.OpenFile(filepath.Join(dir, "app.py"), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString("1")
	require.NoError(t, errors.Join(err, file.Close()))
	// The layer's change shows that the code has been looked at since.
	objects.set("b/k.zip", "2")
	eventually(t, func() bool { return p.get("zip").Code.Layers[0].Version == "etag:2" }, "the layer's new version")
	assert.Equal(t, first, p.get("zip").Code.Source.Version)
	assert.Equal(t, 2, p.applied())
}

func TestWatcher_StoreAway_WaitsAndThenKeepsTheOldVersion(t *testing.T) {
	objects := &fakeObjects{}
	w, p := mustOpen(t, objects, 20*time.Millisecond)
	w.Set(functions("s3://b/k.zip"))
	assert.Empty(t, p.get("zip").Code.Source.Version)
	objects.set("b/k.zip", "1")
	eventually(t, func() bool { return p.get("zip").Code.Source.Version == "etag:1" }, "the first version")
	applied := p.applied()
	objects.set("b/k.zip", "")
	w.Set(functions("s3://b/k.zip"))
	assert.Equal(t, "etag:1", p.get("zip").Code.Source.Version)
	assert.Equal(t, applied+1, p.applied())
	objects.set("b/k.zip", "2")
	eventually(t, func() bool { return p.get("zip").Code.Source.Version == "etag:2" }, "the next version")
}

// fails when only the first of several functions' sources is looked at.
func TestWatcher_FunctionsThatShareCode_AllHaveItsVersion(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "app/app.py"), "1")
	write(t, filepath.Join(dir, "layer/x.py"), "1")
	shared := map[string]*gateway.Function{}
	for _, name := range []string{"a", "b", "c", "d"} {
		f := *functions(filepath.Join(dir, "app"), filepath.Join(dir, "layer"))["zip"]
		f.Name = name
		shared[name] = &f
	}
	w, p := mustOpen(t, nil, time.Hour)
	for range 2 {
		w.Set(shared)
		for name := range shared {
			assert.NotEmpty(t, p.get(name).Code.Source.Version, name)
			assert.NotEmpty(t, p.get(name).Code.Layers[0].Version, name)
		}
		assert.NoError(t, w.Check(t.Context()))
		assert.Empty(t, w.Problems())
		// One more of them with a reload.
		f := *shared["a"]
		f.Name = "e"
		shared["e"] = &f
	}
}

// A store that is away may come back: the box waits for it. Code that is not there is not waited for.
func TestWatcher_Check_WaitsForWhatMayCome(t *testing.T) {
	objects := &fakeObjects{}
	w, p := mustOpen(t, objects, 20*time.Millisecond)
	missing := filepath.Join(t.TempDir(), "nothing")
	all := functions("s3://b/k.zip", "s3://b/gone.zip")
	gone := *functions(missing)["zip"]
	gone.Name = "gone"
	all["gone"] = &gone
	w.Set(all)
	assert.ErrorContains(t, w.Check(t.Context()), "zip: its code at s3://b/k.zip cannot be looked at: the store is away")
	assert.Contains(t, w.Problems()["gone"], "its code at "+missing+" cannot be looked at: ")
	assert.Len(t, w.Problems(), 2)
	assert.Equal(t, reason.CodeMissing, p.get("gone").Code.Source.Problem)
	assert.Equal(t, reason.StoreAway, p.get("zip").Code.Source.Problem)
	assert.Len(t, w.Notes(), 2)

	objects.set("b/k.zip", "1")
	objects.set("b/gone.zip", "gone")
	eventually(t, func() bool { return w.Check(t.Context()) == nil }, "what is missing is not waited for")
	assert.Len(t, w.Problems(), 2)
	assert.Contains(t, w.Problems()["zip"], "gone.zip")
	eventually(t, func() bool { return p.get("zip").Code.Layers[0].Problem == reason.CodeMissing }, "the pool is told so")
	objects.set("b/gone.zip", "2")
	write(t, missing+"/app.py", "1")
	eventually(t, func() bool { return len(w.Problems()) == 0 }, "all is there")
	assert.Empty(t, w.Notes())
	eventually(t, func() bool {
		return p.get("gone").Code.Source.Version != "" && p.get("zip").Code.Layers[0].Version != ""
	}, "versions")
	assert.Empty(t, p.get("gone").Code.Source.Problem)
}

func TestWatcher_StoreThatStaysAway_IsNotWaitedForForEver(t *testing.T) {
	p := &pools{}
	w := codewatch.Open(codewatch.Options{Poll: 20 * time.Millisecond, Objects: &fakeObjects{}, Patience: 300 * time.Millisecond}, p.apply)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	w.Set(functions("s3://b/k.zip"))
	eventually(t, func() bool { return w.Check(t.Context()) == nil }, "the rest of the box is of use without it")
	assert.Contains(t, w.Problems()["zip"], "the store is away")
}
