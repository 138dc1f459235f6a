package chaos

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

// damage is what a power cut or a bad disk may do to files.
type damage struct {
	name string
	// files are globs below the box's home.
	files []string
	do    func(file string) error
	// refused: `up` names the file and what to do, and starts once it is as it was. Otherwise the box works without a hand.
	refused bool
	// warned is part of what `up` says about it.
	warned string
}

// damages are those of which each has another way to be healed.
func damages() []damage {
	const store = "containerd/io.containerd."
	return []damage{
		{name: "blocks of the queue are noise", files: []string{"gateway/async/jetstream/*/streams/*/msgs/*.blk"}, do: noise},
		{name: "a block of the queue is cut", files: []string{"gateway/async/jetstream/*/streams/*/msgs/*.blk"}, do: cut},
		{name: "descriptions of the queue are empty", files: []string{"gateway/async/jetstream/*/streams/*/meta.inf"}, do: empty},
		{name: "containerd's list is cut", files: []string{store + "metadata.v1.bolt/meta.db"}, do: cut, warned: "the store of images was damaged"},
		{name: "list of layers is noise", files: []string{store + "snapshotter.v1.overlayfs/metadata.db"}, do: noise},
		{name: "layers are gone", files: []string{store + "snapshotter.v1.overlayfs/snapshots/*"}, do: os.RemoveAll},
		{name: "content is gone", files: []string{store + "content.v1.content/blobs/sha256/*"}, do: os.RemoveAll},
		{name: "image archives are cut", files: []string{"images/*.tar"}, do: cut},
		{name: "times of schedules and keys of access are noise", files: []string{"gateway/schedules.json", "gateway/function-access.json"}, do: noise},
		{name: "owner is empty", files: []string{"gateway/owner"}, do: empty, refused: true},
		{name: "records of processes and settings are noise", files: []string{"run/*.pid", "run/stack.json", "run/supervisor.json"}, do: noise},
		{name: "key of tokens is empty", files: []string{"gateway/jwt.key"}, do: empty, refused: true},
		{name: "tables are noise", files: []string{"data/db/dynamodb.sqlite*"}, do: noise, warned: "the store db does not work"},
		{name: "files are of a clock ten years ahead", files: []string{"gateway", "run", "images", "containerd", "logs", "data"}, do: dated(10 * 365 * 24 * time.Hour)},
		{name: "files are of a clock that had lost its time", files: []string{"gateway", "run", "images", "containerd", "logs", "data"}, do: dated(-40 * 365 * 24 * time.Hour)},
	}
}

func noise(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	// The owner and the mode stay.
	return os.WriteFile(file, bytes.Repeat([]byte("noise"), int(info.Size())/5+1)[:info.Size()], 0o600)
}

// cut takes the end of a file away, where there is something: bbolt doubles a file that has become too small, so the second half of a
// database may be empty yet.
func cut(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	return os.Truncate(file, info.Size()/3)
}

func empty(file string) error { return os.Truncate(file, 0) }

// dated sets the times of all files of a folder.
func dated(by time.Duration) func(string) error {
	when := time.Now().Add(by)
	return func(dir string) error {
		return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				err = os.Chtimes(path, when, when)
			}
			return err
		})
	}
}

// leastDamages are tried in any case.
const leastDamages = 3

// runDamage cuts the power, damages files, and starts the box.
func runDamage(t *testing.T, b *box, a *account) {
	all := damages()
	random := a.plan.random(3)
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	all = all[:a.plan.times(len(all), leastDamages, len(all))]
	for i, d := range all {
		if i >= leastDamages && a.plan.late(a.began, 1) {
			t.Logf("%d of %d: the others have no time", i, len(all))
			return
		}
		t.Run(d.name, func(t *testing.T) { b.damage(t, a.open(t, d.name), d) })
	}
}

func (b *box) damage(t *testing.T, p *part, d damage) {
	_, err := hoststate.KillAll(b.Home, b.Bridge)
	require.NoError(t, err)
	type was struct {
		data []byte
		info fs.FileInfo
	}
	before := map[string]was{}
	for _, pattern := range d.files {
		files, err := filepath.Glob(filepath.Join(b.Home, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			if d.refused || d.warned != "" {
				data, err := os.ReadFile(file)
				require.NoError(t, err)
				info, err := os.Stat(file)
				require.NoError(t, err)
				before[file] = was{data, info}
			}
			require.NoError(t, d.do(file))
		}
	}
	restore := func() {
		for file, was := range before {
			require.NoError(t, os.WriteFile(file, was.data, was.info.Mode().Perm()))
			// One that the store has removed meanwhile must be its own again.
			owner := was.info.Sys().(*syscall.Stat_t)
			require.NoError(t, os.Chown(file, int(owner.Uid), int(owner.Gid)))
		}
	}
	began := time.Now()
	out, err := b.Esb(t.Context(), "up")
	p.measure("up took %s", short(time.Since(began)))
	t.Log(out)
	if d.refused {
		named := err != nil
		for file := range before {
			named = named && strings.Contains(out, file)
		}
		p.hold(t, named, "`up` must name what is damaged: %v: %s", err, tail(out))
		restore()
		require.NoError(t, b.Up(t.Context()))
		b.mustServe(t)
		return
	}
	p.hold(t, err == nil, "`up` must start the box: %v: %s", err, tail(out))
	if d.warned != "" {
		p.hold(t, strings.Contains(out, d.warned), "`up` must say %q: %s", d.warned, tail(out))
	}
	sent := time.Now()
	b.mustServe(t)
	p.measure("served %s after it", short(time.Since(sent)))
	first := time.Now()
	var events []traffic.Sample
	for n := range 5 {
		events = append(events, b.gen.Ask(t.Context(), b.eventStream(1), n))
	}
	failed := traffic.Failed(events)
	p.hold(t, len(failed) == 0, "events must be accepted: %s", describe(failed, first))
	b.checkEvents(t, p, first)
	if d.warned != "" && slices.ContainsFunc(d.files, func(f string) bool { return strings.HasPrefix(f, "data/") }) {
		restore()
	}
	b.mustBeWell(t)
	out, err = b.Esb(t.Context(), "doctor")
	if err != nil {
		p.measure("the doctor still has something to say")
		t.Log(out)
	}
}

// tail is the end of what a command has said.
func tail(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(len(lines)-6, 0):], " | ")
}
