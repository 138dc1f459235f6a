package storedb

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

// asChild is what makes this test's program the process that looks.
const asChild = "ESB_TEST_INSPECT"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		code, said := Inspect(os.Args[2:])
		fmt.Fprintln(os.Stderr, said)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// mustDatabase makes a database with a bucket at each path and enough in it to have many pages.
func mustDatabase(t *testing.T, file string, paths ...[]string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	db, err := bbolt.Open(file, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		filling, err := tx.CreateBucketIfNotExists([]byte("filling"))
		require.NoError(t, err)
		for i := range 200 {
			require.NoError(t, filling.Put(fmt.Appendf(nil, "%04d", i), []byte(strings.Repeat("x", 500))))
		}
		for _, path := range paths {
			b, err := tx.CreateBucketIfNotExists([]byte(path[0]))
			require.NoError(t, err)
			for _, name := range path[1:] {
				if key, value, ok := strings.Cut(name, "="); ok {
					require.NoError(t, b.Put([]byte(key), []byte(value)))
					break
				}
				b, err = b.CreateBucketIfNotExists([]byte(name))
				require.NoError(t, err)
			}
		}
		return nil
	}))
	require.NoError(t, db.Close())
}

// mustStore makes the databases of a containerd that has one layer unpacked and one container.
func mustStore(t *testing.T) (root, state string) {
	t.Helper()
	root, state = filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "state")
	files := Databases(root, state)
	mustDatabase(t, files[0],
		[]string{"v1", "esb-runtime", "snapshots", "overlayfs", "sha256:aa", "name=esb-runtime/1/sha256:aa"},
		[]string{"v1", "esb-runtime", "snapshots", "overlayfs", "lambda-x", "name=esb-runtime/2/lambda-x"})
	mustDatabase(t, files[1], []string{"v1", "snapshots", "esb-runtime/1/sha256:aa"})
	mustDatabase(t, files[2])
	return root, state
}

// TestCheck_WhatIsCutOffWasFree_IsDamage: nothing that is in use is missing, until somebody writes.
func TestCheck_WhatIsCutOffWasFree_IsDamage(t *testing.T) {
	t.Setenv(asChild, "1")
	root, state := mustStore(t)
	file := Databases(root, state)[0]
	db, err := bbolt.Open(file, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("filling")) }))
	for range 3 { // what is in use moves to the free pages at the beginning
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("v1"))
			require.NoError(t, err)
			return b.Put([]byte("again"), []byte("x"))
		}))
	}
	var used int64
	require.NoError(t, db.View(func(tx *bbolt.Tx) error { used = tx.Size(); return nil }))
	require.NoError(t, db.Close())
	damage, err := Check(t.Context(), []string{os.Args[0], "look"}, root, state)
	require.NoError(t, err)
	assert.Empty(t, damage)
	require.NoError(t, os.Truncate(file, used-int64(os.Getpagesize())))
	damage, err = Check(t.Context(), []string{os.Args[0], "look"}, root, state)
	require.NoError(t, err)
	assert.Contains(t, damage, fmt.Sprintf("bytes of %d", used))
}

func TestCheck_SeesDamage(t *testing.T) {
	t.Setenv(asChild, "1")
	for name, c := range map[string]struct {
		damage func(t *testing.T, files []string)
		whole  bool
	}{
		"whole":                        {func(*testing.T, []string) {}, true},
		"nothing there yet":            {func(t *testing.T, files []string) { remove(t, files...) }, true},
		"mounts of before a restart":   {func(t *testing.T, files []string) { remove(t, files[2]) }, true},
		"list of all cut":              {func(t *testing.T, files []string) { cut(t, files[0]) }, false},
		"list of layers cut":           {func(t *testing.T, files []string) { cut(t, files[1]) }, false},
		"list of mounts cut":           {func(t *testing.T, files []string) { cut(t, files[2]) }, false},
		"list of layers gone":          {func(t *testing.T, files []string) { remove(t, files[1]) }, false},
		"list of layers is another's":  {func(t *testing.T, files []string) { remove(t, files[1]); mustDatabase(t, files[1]) }, false},
		"list of all is no database":   {func(t *testing.T, files []string) { write(t, files[0], "noise") }, false},
		"pages of noise in the middle": {func(t *testing.T, files []string) { scribble(t, files[0]) }, false},
		"an image's root filesystem was being made": {func(t *testing.T, files []string) {
			mustDatabase(t, files[0], []string{"v1", "esb-runtime", "snapshots", "overlayfs", "derive-sha256:aa-x", "name=esb-runtime/3/derive-sha256:aa-x"})
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			root, state := mustStore(t)
			c.damage(t, Databases(root, state))
			damage, err := Check(t.Context(), []string{os.Args[0], "inspect"}, root, state)
			require.NoError(t, err)
			assert.Equal(t, c.whole, damage == "", damage)
		})
	}
}

// TestDamage_IsNotTheMachinesFault: Go ends a process with the code of a panic also when it has no memory or threads.
func TestDamage_IsNotTheMachinesFault(t *testing.T) {
	for said, damaged := range map[string]bool{
		"panic: assertion failed: page 7\n\ngoroutine 1":                true,
		"unexpected fault address 0x7f\nfatal error: fault":             true,
		"runtime: goroutine stack exceeds 1000000000-byte limit":        true,
		"runtime: failed to create new OS thread (have 5; errno=11)\nx": false,
		"fatal error: runtime: out of memory":                           false,
		"SIGQUIT: quit\nPC=0x47":                                        false,
		"runtime/cgo: pthread_create failed: Resource temporarily":      false,
		"": false,
	} {
		ended := exec.Command("sh", "-c", "exit 2").Run()
		assert.Equal(t, damaged, Damage(ended, said) != "", said)
	}
	assert.Empty(t, Damage(exec.Command("sh", "-c", "exit 1").Run(), "panic: x"))
	assert.NotEmpty(t, Damage(exec.Command("sh", "-c", "exit 3").Run(), ""))
	assert.Empty(t, Damage(errors.New("not started"), "panic: x"))
}

// TestJudge_EndOfTheLook_IsDamageOnlyWhenItSaysSo, for whoever starts one process more.
func TestJudge_EndOfTheLook_IsDamageOnlyWhenItSaysSo(t *testing.T) {
	damage, err := Judge(t.Context(), []string{"sh", "-c", "echo 'panic: page 7' >&2; exit 2"}, nil)
	require.NoError(t, err)
	assert.Equal(t, "panic: page 7", damage)
	for _, script := range []string{"echo 'fatal error: runtime: out of memory' >&2; exit 2", "kill -9 $$", "exit 1"} {
		damage, err = Judge(t.Context(), []string{"sh", "-c", script}, nil)
		require.Error(t, err, script)
		assert.Empty(t, damage, script)
	}
}

func remove(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		require.NoError(t, os.Remove(file))
	}
}

func cut(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(file, info.Size()/2))
}

func write(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

// scribble leaves the two first pages, which say where the others are.
func scribble(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	for i := 2 * os.Getpagesize(); i < len(data); i++ {
		data[i] = 0xa5
	}
	require.NoError(t, os.WriteFile(file, data, 0o600))
}

func TestSetAside_KeepsTheDatabases(t *testing.T) {
	root, state := mustStore(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	layer := filepath.Join(root, snapshotter, "snapshots", "1", "fs")
	blob := filepath.Join(root, "io.containerd.content.v1.content", "blobs", "sha256", "aa")
	for _, dir := range []string{layer, blob} {
		require.NoError(t, os.MkdirAll(dir, 0o700))
	}
	kept, err := SetAside(root, state, now)
	require.NoError(t, err)
	for _, file := range Databases(root, state) {
		assert.NoFileExists(t, file)
		assert.FileExists(t, filepath.Join(kept, filepath.Base(file)))
	}
	assert.NoDirExists(t, layer)
	assert.DirExists(t, blob)
	require.Len(t, Notes(root, now), 1)
	assert.Contains(t, Notes(root, now)[0], kept)
	assert.Empty(t, Notes(root, now.Add(30*24*time.Hour)))
}

// TestSetAside_RemovesLayersFirst: a disk that is full of them has room for the rest then.
func TestSetAside_RemovesLayersFirst(t *testing.T) {
	root, state := mustStore(t)
	layers := filepath.Join(root, snapshotter, "snapshots")
	require.NoError(t, os.MkdirAll(filepath.Join(layers, "1"), 0o700))
	write(t, filepath.Join(root, damaged), "no folder can be made here")
	_, err := SetAside(root, state, time.Now())
	require.Error(t, err)
	assert.NoDirExists(t, layers)
	for _, file := range Databases(root, state) {
		assert.FileExists(t, file)
	}
}

// TestSetAside_Interrupted_GoesOn: what is left of the databases still seems damaged.
func TestSetAside_Interrupted_GoesOn(t *testing.T) {
	t.Setenv(asChild, "1")
	root, state := mustStore(t)
	files := Databases(root, state)
	// It comes to an end at the list of all: there is a folder where that is to go.
	now := time.Now()
	kept := filepath.Join(root, damaged, now.UTC().Format(stamp))
	require.NoError(t, os.MkdirAll(filepath.Join(kept, filepath.Base(files[0]), "x"), 0o700))
	_, err := SetAside(root, state, now)
	require.Error(t, err)
	damage, err := Check(t.Context(), []string{os.Args[0], "inspect"}, root, state)
	require.NoError(t, err)
	assert.NotEmpty(t, damage)
}

// TestSetAside_IsBounded: a bad disk is no reason to make everything anew for ever, nor to fill it with what was damaged.
func TestSetAside_IsBounded(t *testing.T) {
	root, state := mustStore(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range 2 {
		_, err := SetAside(root, state, now.Add(time.Duration(i)*time.Minute))
		require.NoError(t, err)
	}
	_, err := SetAside(root, state, now.Add(2*time.Minute))
	require.ErrorIs(t, err, errAgain)
	for i := range 5 {
		_, err := SetAside(root, state, now.Add(time.Duration(i+2)*time.Hour))
		require.NoError(t, err)
	}
	assert.Len(t, sets(root), maxSets)
	assert.Equal(t, now.Add(6*time.Hour), sets(root)[maxSets-1].at)
	big := filepath.Join(sets(root)[0].dir, "meta.db")
	require.NoError(t, os.WriteFile(big, nil, 0o600))
	require.NoError(t, os.Truncate(big, maxBytes))
	_, err = SetAside(root, state, now.Add(10*time.Hour))
	require.NoError(t, err)
	for _, s := range sets(root) {
		assert.Less(t, s.bytes, int64(maxBytes))
	}
}
