package cgroup

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const id = "lambda-echo-1"

// mustTree writes files below a new folder that stands for /sys/fs/cgroup.
func mustTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	return root
}

func mustRead(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	require.NoError(t, err)
	return string(b)
}

func treeV1() map[string]string {
	files := map[string]string{
		"memory/esb-x/" + id + "/memory.usage_in_bytes":     "1000\n",
		"memory/esb-x/" + id + "/memory.max_usage_in_bytes": "3000\n",
		"memory/esb-x/" + id + "/memory.limit_in_bytes":     "134217728\n",
		"memory/esb-x/" + id + "/memory.oom_control":        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
		"cpuacct/esb-x/" + id + "/cpuacct.usage":            "777\n",
		"cpu/esb-x/" + id + "/cpu.stat":                     "nr_periods 9\nnr_throttled 4\nthrottled_time 5\n",
		"cpu/esb-x/" + id + "/cpu.cfs_period_us":            "",
		"cpu/esb-x/" + id + "/cpu.cfs_quota_us":             "-1",
		"pids/esb-x/" + id + "/pids.current":                "6\n",
		"freezer/esb-x/" + id + "/freezer.state":            "THAWED\n",
	}
	for _, c := range controllersV1 {
		files[c+"/cgroup.procs"] = ""
	}
	return files
}

func treeV2() map[string]string {
	return map[string]string{
		"cgroup.controllers":                "cpuset cpu io memory pids\n",
		"cgroup.subtree_control":            "",
		"esb-x/cgroup.subtree_control":      "",
		"esb-x/memory.swap.max":             "max",
		"esb-x/" + id + "/memory.current":   "1000\n",
		"esb-x/" + id + "/memory.peak":      "3000\n",
		"esb-x/" + id + "/memory.max":       "134217728\n",
		"esb-x/" + id + "/memory.events":    "low 0\noom 1\noom_kill 2\n",
		"esb-x/" + id + "/cpu.stat":         "usage_usec 777\nnr_throttled 4\n",
		"esb-x/" + id + "/cpu.max":          "max 100000\n",
		"esb-x/" + id + "/pids.current":     "6\n",
		"esb-x/" + id + "/cgroup.freeze":    "0\n",
		"esb-x/" + id + "/memory.swap.peak": "0\n",
	}
}

func TestStats_ReadsBothVersions(t *testing.T) {
	want := Stats{MemoryBytes: 1000, MemoryPeakBytes: 3000, MemoryLimitBytes: 128 << 20, ThrottledPeriods: 4, OOMKills: 2, PIDs: 6}
	for name, c := range map[string]struct {
		files map[string]string
		cpu   uint64
	}{
		"v1": {treeV1(), 777},
		"v2": {treeV2(), 777_000},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := Open(mustTree(t, c.files), "esb-x")
			require.NoError(t, err)
			got, err := h.Stats(id)
			require.NoError(t, err)
			want.CPUNanoseconds = c.cpu
			assert.Equal(t, want, got)

			_, err = h.Stats("gone")
			assert.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}

func TestCPUUsed_IsOfAllContainers(t *testing.T) {
	v1, v2 := treeV1(), treeV2()
	v1["cpuacct/esb-x/cpuacct.usage"] = "1500000000\n"
	v2["esb-x/cpu.stat"] = "usage_usec 1500000\nnr_throttled 4\n"
	for name, files := range map[string]map[string]string{"v1": v1, "v2": v2} {
		t.Run(name, func(t *testing.T) {
			h, err := Open(mustTree(t, files), "esb-x")
			require.NoError(t, err)
			used, err := h.CPUUsed()
			require.NoError(t, err)
			assert.Equal(t, 1500*time.Millisecond, used)
		})
	}
	h, err := Open(mustTree(t, treeV1()), "esb-x")
	require.NoError(t, err)
	_, err = h.CPUUsed()
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

func TestFreeze_ThenThaw(t *testing.T) {
	for name, files := range map[string]map[string]string{"v1": treeV1(), "v2": treeV2()} {
		t.Run(name, func(t *testing.T) {
			h, err := Open(mustTree(t, files), "esb-x")
			require.NoError(t, err)
			for _, step := range []struct {
				do   func(string) error
				want bool
			}{{h.Freeze, true}, {h.Freeze, true}, {h.Thaw, false}} {
				require.NoError(t, step.do(id))
				frozen, err := h.Frozen(id)
				require.NoError(t, err)
				assert.Equal(t, step.want, frozen)
			}
			assert.ErrorIs(t, h.Freeze("gone"), fs.ErrNotExist, "a freezer that is not there must not be created")
		})
	}
}

func TestSetQuota_FollowsMemory(t *testing.T) {
	root := mustTree(t, treeV1())
	h, err := Open(root, "esb-x")
	require.NoError(t, err)
	require.NoError(t, h.SetQuota(id, 1769))
	assert.Equal(t, "100000", mustRead(t, root, "cpu/esb-x", id, "cpu.cfs_period_us"))
	assert.Equal(t, "100000", mustRead(t, root, "cpu/esb-x", id, "cpu.cfs_quota_us"))
	require.NoError(t, h.LiftQuota(id))
	assert.Equal(t, "-1", mustRead(t, root, "cpu/esb-x", id, "cpu.cfs_quota_us")[:2])

	root = mustTree(t, treeV2())
	h, err = Open(root, "esb-x")
	require.NoError(t, err)
	require.NoError(t, h.SetQuota(id, 128))
	assert.Equal(t, "7235 100000", mustRead(t, root, "esb-x", id, "cpu.max")[:11])
	require.NoError(t, h.LiftQuota(id))
	assert.Equal(t, "max 100000", mustRead(t, root, "esb-x", id, "cpu.max")[:10])
}

func TestSetLimits_AreThoseThatAContainerIsMadeWith(t *testing.T) {
	files := treeV1()
	for _, name := range []string{"memory/esb-x/" + id + "/memory.memsw.limit_in_bytes", "memory/esb-x/memory.memsw.limit_in_bytes", "cpu/esb-x/" + id + "/cpu.shares"} {
		files[name] = ""
	}
	root := mustTree(t, files)
	h, err := Open(root, "esb-x")
	require.NoError(t, err)
	require.NoError(t, h.SetLimits(id, 1769))
	assert.Equal(t, "1854930944", mustRead(t, root, "memory/esb-x", id, "memory.limit_in_bytes")[:10])
	assert.Equal(t, "1854930944", mustRead(t, root, "memory/esb-x", id, "memory.memsw.limit_in_bytes"))
	assert.Equal(t, "1024", mustRead(t, root, "cpu/esb-x", id, "cpu.shares"))
	require.ErrorIs(t, h.SetLimits("gone", 1769), fs.ErrNotExist)

	files = treeV2()
	delete(files, "esb-x/memory.swap.max")
	for _, name := range []string{"memory.max", "memory.swap.max", "cpu.weight"} {
		files["esb-x/"+id+"/"+name] = ""
	}
	root = mustTree(t, files)
	h, err = Open(root, "esb-x")
	require.NoError(t, err)
	require.NoError(t, h.SetLimits(id, 1769), "no swap is limited")
	assert.Empty(t, mustRead(t, root, "esb-x", id, "memory.swap.max"))
	assert.Equal(t, "1854930944", mustRead(t, root, "esb-x", id, "memory.max"))
	assert.Equal(t, "100", mustRead(t, root, "esb-x", id, "cpu.weight"))
	require.NoError(t, os.WriteFile(filepath.Join(root, "esb-x", "memory.swap.max"), nil, 0o644))
	h, err = Open(root, "esb-x")
	require.NoError(t, err)
	require.NoError(t, h.SetLimits(id, 1769))
	assert.Equal(t, "0", mustRead(t, root, "esb-x", id, "memory.swap.max"))
}

// The values are those of runc 1.5 (opencontainers/cgroups v0.1.0, TestConvertCPUSharesToCgroupV2Value).
func TestWeight_IsRuncs(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 3: 2, 1024: 100, 262143: 10000, 262144: 10000, 1 << 20: 10000} {
		assert.Equal(t, want, weight(shares), shares)
	}
}

func TestSetWeight_IsTheParents(t *testing.T) {
	v1 := map[string]string{"cpu/esb-x/cpu.shares": "", "blkio/cgroup.procs": "", "blkio/esb-x/blkio.bfq.weight": "", "blkio/esb-x/blkio.weight": ""}
	v2 := map[string]string{"esb-x/cpu.weight": "", "esb-x/io.weight": "", "esb-x/io.bfq.weight": ""}
	for name, c := range map[string]struct {
		files, more map[string]string
		weight      int
		want        map[string]string
	}{
		"v1":                         {treeV1(), v1, 12, map[string]string{"cpu/esb-x/cpu.shares": "122", "blkio/esb-x/blkio.bfq.weight": "12", "blkio/esb-x/blkio.weight": "60"}},
		"v1, least":                  {treeV1(), v1, 1, map[string]string{"cpu/esb-x/cpu.shares": "10", "blkio/esb-x/blkio.weight": "10"}},
		"v1, most":                   {treeV1(), v1, 10000, map[string]string{"cpu/esb-x/cpu.shares": "102400", "blkio/esb-x/blkio.bfq.weight": "1000", "blkio/esb-x/blkio.weight": "1000"}},
		"v2":                         {treeV2(), v2, 12, map[string]string{"esb-x/cpu.weight": "12", "esb-x/io.weight": "default 12", "esb-x/io.bfq.weight": "12"}},
		"v1, no weights of the disk": {treeV1(), map[string]string{"cpu/esb-x/cpu.shares": ""}, 100, map[string]string{"cpu/esb-x/cpu.shares": "1024"}},
		"v2, io is not delegated":    {treeV2(), map[string]string{"esb-x/cpu.weight": ""}, 100, map[string]string{"esb-x/cpu.weight": "100"}},
	} {
		t.Run(name, func(t *testing.T) {
			maps.Copy(c.files, c.more)
			root := mustTree(t, c.files)
			h, err := Open(root, "esb-x")
			require.NoError(t, err)
			require.NoError(t, h.SetWeight(c.weight))
			for file, want := range c.want {
				assert.Equal(t, want, mustRead(t, root, file), file)
			}
		})
	}
	h, err := Open(mustTree(t, treeV1()), "esb-x")
	require.NoError(t, err)
	assert.ErrorIs(t, h.SetWeight(12), fs.ErrNotExist, "a weight that cannot be set must be told")
}

func TestQuotaAndShares_KeepTheKernelsMinimum(t *testing.T) {
	assert.EqualValues(t, 1000, Quota(1))
	assert.EqualValues(t, 2, Shares(1))
	assert.EqualValues(t, 1024, Shares(1769))
}

func TestOpen_NamesTheMissingController(t *testing.T) {
	v1 := treeV1()
	delete(v1, "pids/cgroup.procs")
	_, err := Open(mustTree(t, v1), "esb-x")
	assert.ErrorContains(t, err, `"pids"`)

	v2 := treeV2()
	v2["cgroup.controllers"] = "cpu io pids"
	_, err = Open(mustTree(t, v2), "esb-x")
	assert.ErrorContains(t, err, `"memory"`)
}

func TestOpen_SwapOnlyWhereTheKernelCounts(t *testing.T) {
	h, err := Open(mustTree(t, treeV1()), "esb-x")
	require.NoError(t, err)
	assert.False(t, h.LimitsSwap())
	h, err = Open(mustTree(t, treeV2()), "esb-x")
	require.NoError(t, err)
	assert.True(t, h.LimitsSwap())
}

func TestIDs_FindsEachContainerOnce(t *testing.T) {
	h, err := Open(mustTree(t, treeV1()), "esb-x")
	require.NoError(t, err)
	ids, err := h.IDs()
	require.NoError(t, err)
	assert.Equal(t, []string{id}, ids)
}

// mustSleep starts a process that nothing but a signal ends, and returns what tells that it has ended.
func mustSleep(t *testing.T) (pid int, ended <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	require.NoError(t, cmd.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return cmd.Process.Pid, done
}

func TestKill_FreesTheProcessesOfTheirLimits_AndRefusesNewOnes(t *testing.T) {
	for version, c := range map[string]struct {
		files map[string]string
		// before and after are control files of the container's.
		pids, before, after map[string]string
	}{
		"v1": {
			files:  treeV1(),
			pids:   map[string]string{"pids/esb-x/" + id + "/cgroup.procs": "%d\n"},
			before: map[string]string{"cpu/esb-x/" + id + "/cpu.cfs_quota_us": "7", "freezer/esb-x/" + id + "/freezer.state": "FROZEN", "pids/esb-x/" + id + "/pids.max": "9"},
			after:  map[string]string{"cpu/esb-x/" + id + "/cpu.cfs_quota_us": "-1", "freezer/esb-x/" + id + "/freezer.state": "THAWED", "pids/esb-x/" + id + "/pids.max": "0"},
		},
		"v2": {
			files:  treeV2(),
			pids:   map[string]string{"esb-x/" + id + "/cgroup.procs": "%d\n"},
			before: map[string]string{"esb-x/" + id + "/cpu.max": "7 100000", "esb-x/" + id + "/cgroup.freeze": "1", "esb-x/" + id + "/pids.max": "9", "esb-x/" + id + "/cgroup.kill": ""},
			after:  map[string]string{"esb-x/" + id + "/cpu.max": "max 100000", "esb-x/" + id + "/cgroup.freeze": "0", "esb-x/" + id + "/pids.max": "0", "esb-x/" + id + "/cgroup.kill": "1"},
		},
		"v2 of a kernel that has no cgroup.kill": {
			files:  treeV2(),
			pids:   map[string]string{"esb-x/" + id + "/cgroup.procs": "0\n%d\n"}, // 0: of another pid namespace
			before: map[string]string{"esb-x/" + id + "/cpu.max": "7 100000"},
			after:  map[string]string{"esb-x/" + id + "/cpu.max": "max 100000"},
		},
	} {
		t.Run(version, func(t *testing.T) {
			pid, ended := mustSleep(t)
			maps.Copy(c.files, c.before)
			for file, text := range c.pids {
				c.files[file] = fmt.Sprintf(text, pid)
			}
			root := mustTree(t, c.files)
			h, err := Open(root, "esb-x")
			require.NoError(t, err)
			require.NoError(t, h.Kill(t.Context(), id))
			<-ended
			for file, want := range c.after {
				assert.Equal(t, want, mustRead(t, root, file), file)
			}
			assert.ErrorIs(t, h.Kill(t.Context(), "gone"), fs.ErrNotExist)
		})
	}
}

func TestKill_LeavesAnEmptyGroupAsItIs(t *testing.T) {
	files := treeV1()
	files["pids/esb-x/"+id+"/cgroup.procs"], files["cpu/esb-x/"+id+"/cpu.cfs_quota_us"] = "", "7"
	root := mustTree(t, files)
	h, err := Open(root, "esb-x")
	require.NoError(t, err)
	require.ErrorIs(t, h.Kill(t.Context(), id), fs.ErrNotExist, "whoever has processes elsewhere has to end them otherwise")
	assert.Equal(t, "7", mustRead(t, root, "cpu/esb-x", id, "cpu.cfs_quota_us"))
}

func TestRemove_RefusesPaths(t *testing.T) {
	h, err := Open(mustTree(t, treeV1()), "esb-x")
	require.NoError(t, err)
	for _, bad := range []string{"", "..", "../../etc"} {
		assert.Error(t, h.Remove(t.Context(), bad), bad)
	}
}

func TestCreate_MakesWhatTheContainerIsShown(t *testing.T) {
	for version, c := range map[string]struct {
		tree map[string]string
		want []string
	}{"v1": {treeV1(), []string{"memory", "cpu", "cpuacct", "pids"}}, "v2": {treeV2(), []string{""}}} {
		root, want := mustTree(t, c.tree), c.want
		h, err := Open(root, "esb-x")
		require.NoError(t, err)
		folders, err := h.Create("c1")
		require.NoError(t, err)
		var names []string
		for _, f := range folders {
			names = append(names, f.Name)
			assert.DirExists(t, f.Host)
			assert.True(t, strings.HasPrefix(f.Host, root))
		}
		assert.Equal(t, want, names, version)
	}
}

func TestHas_TellsAContainersProcesses(t *testing.T) {
	h := &Hierarchy{parent: "esb-esb0"}
	for groups, want := range map[string]bool{
		"12:memory:/esb-esb0/lambda-1\n0::/\n":  true,
		"0::/docker/abc/esb-esb0/lambda-1\n":    true,
		"12:memory:/esb-esb0/lambda-12\n0::/\n": false,
		"12:memory:/other-esb0/lambda-1\n":      false,
		"12:memory:/esb-esb0/lambda-1/inner\n":  false,
		"":                                      false,
	} {
		assert.Equal(t, want, h.Has("lambda-1", groups), groups)
	}
}
