package cgroup_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent/cgroup"
)

func TestHierarchy_MemoryUsed_LeavesOutWhatTheKernelTakesBack(t *testing.T) {
	v1 := map[string]string{
		"memory.usage_in_bytes": "5000\n",
		"memory.stat":           "rss 7\nshmem 7\ntotal_cache 500\ntotal_rss 500\ntotal_rss_huge 400\ntotal_shmem 100\ntotal_inactive_file 300\ntotal_active_file 100\n",
	}
	v2 := map[string]string{
		"memory.current": "5000\n",
		"memory.stat":    "anon 500\nfile 500\nkernel 1000\nkernel_stack 10\npagetables 20\nsock 5\nshmem 60\nanon_thp 400\nslab_reclaimable 900\nslab_unreclaimable 5\nslab 905\n",
	}
	for name, c := range map[string]struct {
		controllers, files map[string]string
		dir                string
	}{
		"v1": {map[string]string{"memory/cgroup.procs": "", "cpu/cgroup.procs": "", "cpuacct/cgroup.procs": "", "pids/cgroup.procs": "", "freezer/cgroup.procs": ""}, v1, "memory/esb"},
		"v2": {map[string]string{"cgroup.controllers": "memory cpu pids", "cgroup.subtree_control": "", "esb/cgroup.subtree_control": ""}, v2, "esb"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write := func(file, text string) {
				path := filepath.Join(root, file)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			}
			for file, text := range c.controllers {
				write(file, text)
			}
			h, err := cgroup.Open(root, "esb")
			require.NoError(t, err)
			_, err = h.MemoryUsed()
			require.Error(t, err, "nothing is no answer")
			for file, text := range c.files {
				write(filepath.Join(c.dir, file), text)
			}
			used, err := h.MemoryUsed()
			require.NoError(t, err)
			assert.Equal(t, int64(600), used)
			write(filepath.Join(c.dir, "memory.stat"), "cache 1\n")
			_, err = h.MemoryUsed()
			require.ErrorContains(t, err, "memory.stat has no ")
		})
	}
}
