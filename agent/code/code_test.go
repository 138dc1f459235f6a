package code

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/flight"
	"github.com/edge-serverless-box/esb/api/codeversion"
)

// file is one entry of a zip file.
type file struct {
	name string
	mode fs.FileMode
	data string
}

func zipOf(t *testing.T, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate}
		h.SetMode(f.mode)
		out, err := w.CreateHeader(h)
		require.NoError(t, err)
		_, err = io.WriteString(out, f.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func mustWrite(t *testing.T, path string, data []byte) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, data, 0o644))
	return path
}

// local is the source of a local path, in the version that it has now.
func local(t *testing.T, path string) agent.CodeSource {
	t.Helper()
	version, err := codeversion.Of(t.Context(), path)
	require.NoError(t, err)
	return agent.CodeSource{Location: path, Version: version}
}

func mustOpen(t *testing.T, dir string, maxBytes int64, objects Objects) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir, MaxBytes: maxBytes, Objects: objects, Roots: []string{"/"}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// contents lists the files below dir: "name=data", with * for executable, "name->target" for links.
func contents(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		if d.Type() == fs.ModeSymlink {
			target, err := os.Readlink(path)
			all = append(all, name+"->"+target)
			return err
		}
		info, err := d.Info()
		require.NoError(t, err)
		data, err := os.ReadFile(path)
		if info.Mode()&0o111 != 0 {
			name += "*"
		}
		all = append(all, name+"="+string(data))
		return err
	}))
	return all
}

func TestStore_EvilZips_AreRefusedByName(t *testing.T) {
	const link = fs.ModeSymlink | 0o777
	huge := zipOf(t, file{"a", 0o644, "x"})
	big := binary.LittleEndian.AppendUint32(nil, codeversion.MaxBytes+1)
	copy(huge[bytes.Index(huge, []byte("PK\x01\x02"))+24:], big) // the size that the directory tells
	lying := zipOf(t, file{"liar", 0o644, strings.Repeat("x", 100)})
	copy(lying[bytes.Index(lying, []byte("PK\x01\x02"))+24:], []byte{1, 0, 0, 0})
	encrypted := zipOf(t, file{"secret", 0o644, "x"})
	encrypted[bytes.Index(encrypted, []byte("PK\x01\x02"))+8] |= 1
	broken := zipOf(t, file{"broken", 0o644, strings.Repeat("abc", 100)})
	broken[bytes.Index(broken, []byte("broken"))+8] ^= 0xff
	many := make([]file, codeversion.MaxEntries+1)
	for i := range many {
		many[i] = file{name: fmt.Sprintf("f%d", i), mode: 0o644}
	}
	for name, c := range map[string]struct {
		zip  []byte
		want string
	}{
		"up":                     {zipOf(t, file{"../evil", 0o644, "x"}), `entry "../evil": leaves the folder`},
		"up in the middle":       {zipOf(t, file{"a/../../evil", 0o644, "x"}), `entry "a/../../evil": leaves the folder`},
		"absolute":               {zipOf(t, file{"/etc/passwd", 0o644, "x"}), `entry "/etc/passwd": has an absolute path`},
		"backslashes":            {zipOf(t, file{`..\evil`, 0o644, "x"}), "has a backslash"},
		"double slash":           {zipOf(t, file{"a//b", 0o644, "x"}), "is not a plain path"},
		"zero byte":              {zipOf(t, file{"a\x00b", 0o644, "x"}), "is not UTF-8 text"},
		"long name":              {zipOf(t, file{strings.Repeat("n", 256), 0o644, "x"}), "has 256 bytes"},
		"link to nothing":        {zipOf(t, file{"l", link, ""}), `entry "l": is a link to no valid path`},
		"link with a zero byte":  {zipOf(t, file{"l", link, "a\x00b"}), `entry "l": is a link to no valid path`},
		"file below a link up":   {zipOf(t, file{"a", link, "../../.."}, file{"a/evil", 0o644, "x"}), `entry "a/evil": lies below "a", which is no folder`},
		"file in the host's etc": {zipOf(t, file{"a", link, "/etc"}, file{"a/passwd", 0o644, "x"}), `entry "a/passwd": lies below "a", which is no folder`},
		"folder below a link":    {zipOf(t, file{"a", link, "/etc"}, file{"a/b/", fs.ModeDir | 0o755, ""}), `entry "a/b/": lies below "a", which is no folder`},
		"link below a link":      {zipOf(t, file{"a", link, "/etc"}, file{"a/b", link, "x"}), `entry "a/b": lies below "a", which is no folder`},
		"link where a file is":   {zipOf(t, file{"a", 0o644, "x"}, file{"a", link, "/etc/passwd"}), `entry "a": is there twice`},
		"link where a folder is": {zipOf(t, file{"a/b", 0o644, "x"}, file{"a", link, "/etc"}), `entry "a": is there twice`},
		"link put under a file":  {zipOf(t, file{"a", link, "/tmp/esb-evil"}, file{"a", 0o644, "x"}), `entry "a": is there twice`},
		"file below a link":      {zipOf(t, file{"l", link, "sub"}, file{"l/evil", 0o644, "x"}), `entry "l/evil": lies below "l", which is no folder`},
		"file below a file":      {zipOf(t, file{"f", 0o644, "x"}, file{"f/evil", 0o644, "x"}), `lies below "f"`},
		"twice":                  {zipOf(t, file{"a", 0o644, "x"}, file{"./a", 0o644, "y"}), `entry "./a": is there twice`},
		"folder and file":        {zipOf(t, file{"a/b", 0o644, "x"}, file{"a", 0o644, "y"}), `entry "a": is there twice`},
		"device":                 {zipOf(t, file{"sda", fs.ModeDevice | 0o644, ""}), `entry "sda": is neither a file nor a folder nor a link`},
		"pipe":                   {zipOf(t, file{"p", fs.ModeNamedPipe | 0o644, ""}), `entry "p": is neither`},
		"setuid":                 {zipOf(t, file{"su", fs.ModeSetuid | 0o755, "x"}), `entry "su": has the mode`},
		"bomb that says so":      {huge, `entry "a": makes the code larger than 262144000 bytes`},
		"bomb that lies":         {lying, `entry "liar":`},
		"too many entries":       {zipOf(t, many...), "is one too many"},
		"encrypted":              {encrypted, `entry "secret": is encrypted`},
		"broken":                 {broken, `entry "broken": cannot be read`},
		"empty":                  {zipOf(t), "the zip file is empty"},
		"no zip file at all":     {[]byte("#!/bin/sh\n"), "is not a zip file that can be read"},
		"cut off":                {zipOf(t, file{"a", 0o644, "x"})[:30], "is not a zip file that can be read"},
		"directory without end":  {endless(t), "its list of entries is too long"},
		"unpacks to a whole lot": {bomb(t), "makes the code larger"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, filepath.Join(dir, "code"), 0, nil)
			path := mustWrite(t, filepath.Join(dir, "evil.zip"), c.zip)
			_, err := s.Get(t.Context(), agent.FunctionCode{Source: local(t, path)})
			assert.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, path)
			assert.Equal(t, agent.CodePrecondition, agent.ErrorCode(err))
			assert.Empty(t, s.pins)
			for _, place := range []string{"tmp", "trees"} {
				left, err := os.ReadDir(s.path(place))
				require.NoError(t, err)
				assert.Empty(t, left, place)
			}
		})
	}
}

// endless is a zip file whose directory has more entries than memory should be spent on.
func endless(t *testing.T) []byte {
	t.Helper()
	one := zipOf(t, file{"a", 0o644, ""})
	start, end := bytes.Index(one, []byte("PK\x01\x02")), bytes.Index(one, []byte("PK\x05\x06"))
	record := one[start:end]
	out := append([]byte{}, one[:start]...)
	records := bytes.Repeat(record, directoryBytes/len(record)+1)
	tail := append([]byte{}, one[end:]...)
	binary.LittleEndian.PutUint32(tail[12:], uint32(len(records)))
	return append(append(out, records...), tail...)
}

// bomb is a small zip file of two entries that are too large together.
func bomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range []string{"a", "b"} {
		out, err := w.Create(name)
		require.NoError(t, err)
		_, err = io.CopyN(out, zeros{}, codeversion.MaxBytes/2+1)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestStore_Zip_IsUnpackedForEveryUser(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "code"), 0, nil)
	defer syscall.Umask(syscall.Umask(0o077))
	path := mustWrite(t, filepath.Join(dir, "f.zip"), zipOf(t,
		file{"bootstrap", 0o700, "program"}, file{"sub/", fs.ModeDir | 0o700, ""}, file{"sub/data", 0o400, "d"},
		file{"deep/er/x", 0o644, ""}, file{"link", fs.ModeSymlink | 0o777, "sub/data"}, file{"dangling", fs.ModeSymlink | 0o777, "later"}))
	l, err := s.Get(t.Context(), agent.FunctionCode{Source: local(t, path), Runtime: "provided.al2023"})
	require.NoError(t, err)
	defer l.Release()
	assert.Equal(t, []string{"bootstrap*=program", "dangling->later", "deep/er/x=", "link->sub/data", "sub/data=d"}, contents(t, l.Task))
	for name, mode := range map[string]fs.FileMode{"": 0o755, "bootstrap": 0o755, "sub": 0o755, "deep/er": 0o755, "sub/data": 0o644} {
		info, err := os.Stat(filepath.Join(l.Task, name))
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode().Perm(), name)
	}
	assert.Empty(t, l.Opt)
	program, err := l.Bootstrap()
	require.NoError(t, err)
	assert.Equal(t, "/var/task/bootstrap", program)
}

func TestStore_Folder_IsCopiedAndFollowsTheSameRules(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "code"), 0, nil)
	folder := filepath.Join(dir, "folder")
	mustWrite(t, filepath.Join(folder, "app.py"), []byte("1"))
	require.NoError(t, os.Symlink("app.py", filepath.Join(folder, "link")))
	require.NoError(t, os.Symlink(folder, filepath.Join(dir, "current")))
	source := local(t, filepath.Join(dir, "current"))
	l, err := s.Get(t.Context(), agent.FunctionCode{Source: source})
	require.NoError(t, err)
	defer l.Release()
	assert.Equal(t, []string{"app.py=1", "link->app.py"}, contents(t, l.Task))

	// What has been copied stays; what is asked for and is not there any more is not made of something else.
	mustWrite(t, filepath.Join(folder, "app.py"), []byte("2"))
	assert.Equal(t, []string{"app.py=1", "link->app.py"}, contents(t, l.Task))
	again, err := s.Get(t.Context(), agent.FunctionCode{Source: source})
	require.NoError(t, err)
	assert.Equal(t, l.Task, again.Task)
	again.Release()
	_, err = s.Get(t.Context(), agent.FunctionCode{Source: agent.CodeSource{
		Location: source.Location, Version: codeversion.Content + strings.Repeat("0", 64),
	}})
	assert.ErrorContains(t, err, "holds another version of the code")
	assert.Equal(t, agent.CodeUnavailable, agent.ErrorCode(err))

	_, err = s.Get(t.Context(), agent.FunctionCode{Source: agent.CodeSource{
		Location: filepath.Join(dir, "nowhere"), Version: codeversion.Content + strings.Repeat("1", 64),
	}})
	assert.ErrorContains(t, err, "the agent has no such file or folder")
}

// wild are links that lead anywhere: they are the container's business (AWS keeps them; aws-sam-cli issue 4364).
var wild = map[string]string{
	"node_modules": "/opt/nodejs/node_modules", "cache": "/tmp/cache", "venv/bin/python3": "/usr/bin/python3", "lib": "/opt/lib",
	"passwd": "/etc/passwd", "up": "../../../../../../etc/passwd", "round": "round", "self": ".", "proc": "/proc/self/root", "gone": "/nowhere/at/all",
}

// TestStore_LinksThatLeadElsewhere_AreKeptAndNeverFollowed packs them into a zip file, a folder and a layer.
func TestStore_LinksThatLeadElsewhere_AreKeptAndNeverFollowed(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "code"), 0, nil)
	files, folder := []file{{"app.py", 0o644, "x"}}, filepath.Join(dir, "folder")
	mustWrite(t, filepath.Join(folder, "app.py"), []byte("x"))
	want := []string{"app.py=x"}
	for name, target := range wild {
		files = append(files, file{name, fs.ModeSymlink | 0o777, target})
		require.NoError(t, os.MkdirAll(filepath.Join(folder, filepath.Dir(name)), 0o755))
		require.NoError(t, os.Symlink(target, filepath.Join(folder, name)))
		want = append(want, name+"->"+target)
	}
	zipped := local(t, mustWrite(t, filepath.Join(dir, "f.zip"), zipOf(t, files...)))
	other := local(t, mustWrite(t, filepath.Join(dir, "other.zip"), zipOf(t, file{"lib/x", 0o644, "y"}, file{"passwd", 0o644, "own"})))
	for name, source := range map[string]agent.CodeSource{"zip": zipped, "folder": local(t, folder)} {
		t.Run(name, func(t *testing.T) {
			l, err := s.Get(t.Context(), agent.FunctionCode{Source: source, Layers: []agent.CodeSource{zipped, other}})
			require.NoError(t, err)
			defer l.Release()
			assert.ElementsMatch(t, want, contents(t, l.Task))
			assert.Subset(t, contents(t, l.Opt), []string{"lib/x=y", "passwd=own", "up->../../../../../../etc/passwd", "proc->/proc/self/root"})
		})
	}
	before, err := os.Stat("/etc/passwd")
	require.NoError(t, err)
	require.NoError(t, s.Prune(func(string) bool { return false }))
	after, err := os.Stat("/etc/passwd")
	require.NoError(t, err)
	assert.Equal(t, before, after)
	trees, err := os.ReadDir(s.path("trees"))
	require.NoError(t, err)
	assert.Empty(t, trees)
}

// TestLease_BootstrapIsALink lets the container decide where it leads.
func TestLease_BootstrapIsALink(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "code"), 0, nil)
	for target, want := range map[string]string{"/opt/bin/run": "", "../opt/bin/run": "", "main": "is not executable", "missing": "there is none"} {
		path := mustWrite(t, filepath.Join(dir, "f.zip"), zipOf(t, file{"bootstrap", fs.ModeSymlink | 0o777, target}, file{"main", 0o644, "x"}))
		l, err := s.Get(t.Context(), agent.FunctionCode{Source: local(t, path), Runtime: "provided.al2023"})
		require.NoError(t, err)
		program, err := l.Bootstrap()
		if want == "" {
			require.NoError(t, err, target)
			assert.Equal(t, "/var/task/bootstrap", program)
		} else {
			assert.ErrorContains(t, err, want, target)
		}
		l.Release()
	}
}

func TestStore_Layers_LaterOnesCount(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "code"), 0, nil)
	layer := func(name string, files ...file) agent.CodeSource {
		return local(t, mustWrite(t, filepath.Join(dir, name), zipOf(t, files...)))
	}
	const link = fs.ModeSymlink | 0o777
	code := layer("code.zip", file{"app.py", 0o644, "x"})
	first := layer("1.zip", file{"both", 0o644, "1"}, file{"only1", 0o644, "1"}, file{"dir/a", 0o644, "1"}, file{"tofile/x", 0o644, "1"}, file{"l", link, "dir"})
	second := layer("2.zip", file{"both", 0o644, "2"}, file{"dir/b", 0o644, "2"}, file{"tofile", 0o644, "2"}, file{"l/inside", 0o644, "2"}, file{"bootstrap", 0o755, "b"})
	l, err := s.Get(t.Context(), agent.FunctionCode{Source: code, Layers: []agent.CodeSource{first, second}, Runtime: "provided.al2023"})
	require.NoError(t, err)
	assert.Equal(t, []string{"bootstrap*=b", "both=2", "dir/a=1", "dir/b=2", "l/inside=2", "only1=1", "tofile=2"}, contents(t, l.Opt))
	program, err := l.Bootstrap()
	require.NoError(t, err)
	assert.Equal(t, "/opt/bootstrap", program)
	assert.Len(t, s.pins, 2, "the code and the merged tree, not the single layers")
	l.Release()

	l, err = s.Get(t.Context(), agent.FunctionCode{Source: code, Layers: []agent.CodeSource{second, first}})
	require.NoError(t, err)
	assert.Equal(t, []string{"bootstrap*=b", "both=1", "dir/a=1", "dir/b=2", "l->dir", "only1=1", "tofile/x=1"}, contents(t, l.Opt))
	l.Release()
	l, err = s.Get(t.Context(), agent.FunctionCode{Source: code, Layers: []agent.CodeSource{first}})
	require.NoError(t, err)
	assert.Contains(t, contents(t, l.Opt), "both=1")
	l.Release()
	l.Release()
	assert.Empty(t, s.pins)
}

func TestStore_CodeAndLayersTogether_HaveAWSsLimit(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "store"), 0, nil)
	folder := func(name string) agent.CodeSource {
		path := mustWrite(t, filepath.Join(dir, name, "large"), nil)
		require.NoError(t, os.Truncate(path, codeversion.MaxBytes/2+1))
		mustWrite(t, filepath.Join(dir, name, "name"), []byte(name))
		return local(t, filepath.Dir(path))
	}
	_, err := s.Get(t.Context(), agent.FunctionCode{Source: folder("code"), Layers: []agent.CodeSource{folder("layer")}})
	assert.ErrorContains(t, err, "at most 262144000 are allowed")
	assert.Empty(t, s.pins)
}

func TestLease_Bootstrap_SaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "code"), 0, nil)
	for name, c := range map[string]struct {
		file file
		want string
	}{
		"none":           {file{"main", 0o755, "x"}, "runtime provided.al2023 needs a program named bootstrap"},
		"not executable": {file{"bootstrap", 0o644, "x"}, "is not executable: chmod 755"},
		"a folder":       {file{"bootstrap/", fs.ModeDir | 0o755, ""}, "bootstrap is not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := mustWrite(t, filepath.Join(dir, name+".zip"), zipOf(t, c.file))
			l, err := s.Get(t.Context(), agent.FunctionCode{Source: local(t, path), Runtime: "provided.al2023"})
			require.NoError(t, err)
			defer l.Release()
			_, err = l.Bootstrap()
			assert.ErrorContains(t, err, c.want)
			assert.Equal(t, agent.CodePrecondition, agent.ErrorCode(err))
		})
	}
}

// fakeObjects is an S3 store with one version of each object, that counts what it is asked.
type fakeObjects struct {
	mu      sync.Mutex
	objects map[string][]byte
	asked   atomic.Int64
	wait    chan struct{}
}

func (f *fakeObjects) put(key string, data []byte) agent.CodeSource {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.objects == nil {
		f.objects = map[string][]byte{}
	}
	f.objects["b/"+key] = data
	return agent.CodeSource{Location: "s3://b/" + key, Version: codeversion.ETag + etagOf(data)}
}

func etagOf(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data))[:32] }

func (f *fakeObjects) Fetch(ctx context.Context, bucket, key, etag string, w io.Writer) error {
	f.asked.Add(1)
	if f.wait != nil {
		select {
		case <-f.wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	data := f.objects[bucket+"/"+key]
	if etagOf(data) != etag {
		return changed(etag)
	}
	_, err := w.Write(data)
	return err
}

func TestStore_Object_IsFetchedOnceAndSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	objects := &fakeObjects{wait: make(chan struct{})}
	source := objects.put("f.zip", zipOf(t, file{"a", 0o644, "1"}))
	s := mustOpen(t, dir, 1<<20, objects)

	// The first caller leaves; the work goes on for the others.
	leaving, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := s.Get(leaving, agent.FunctionCode{Source: source})
		left <- err
	}()
	require.Eventually(t, func() bool { return objects.asked.Load() == 1 }, time.Minute, time.Millisecond)
	leave()
	assert.ErrorIs(t, <-left, context.Canceled)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			l, err := s.Get(t.Context(), agent.FunctionCode{Source: source})
			if assert.NoError(t, err) {
				assert.Equal(t, []string{"a=1"}, contents(t, l.Task))
				l.Release()
			}
		})
	}
	close(objects.wait)
	group.Wait()
	assert.EqualValues(t, 1, objects.asked.Load())
	require.NoError(t, s.Close())

	// A half-made tree of a killed agent goes, the whole one stays, and S3 need not be there.
	mustWrite(t, s.path("tmp", "tree-1", "root", "half"), nil)
	s = mustOpen(t, dir, 1<<20, &fakeObjects{})
	l, err := s.Get(t.Context(), agent.FunctionCode{Source: source})
	require.NoError(t, err)
	l.Release()
	assert.NoDirExists(t, s.path("tmp", "tree-1"))

	// One that was not on the disk when the machine went down goes, too.
	lost := filepath.Dir(l.Task)
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(filepath.Join(lost, synced)))
	_ = mustOpen(t, dir, 1<<20, nil)
	assert.DirExists(t, lost, "this boot's")
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(lost, synced)); return err == nil }, time.Minute, time.Millisecond)
	require.NoError(t, os.Remove(filepath.Join(lost, synced)))
	mustWrite(t, filepath.Join(lost, "info.json"), []byte(`{"boot":"earlier"}`))
	_ = mustOpen(t, dir, 1<<20, nil)
	assert.NoDirExists(t, lost)

	newer := objects.put("f.zip", zipOf(t, file{"a", 0o644, "2"}))
	s = mustOpen(t, dir, 1<<20, objects)
	other := source
	other.Version = codeversion.ETag + "gone"
	_, err = s.Get(t.Context(), agent.FunctionCode{Source: other})
	assert.Equal(t, agent.CodeUnavailable, agent.ErrorCode(err))
	l, err = s.Get(t.Context(), agent.FunctionCode{Source: newer})
	require.NoError(t, err)
	assert.Equal(t, []string{"a=2"}, contents(t, l.Task))
	l.Release()
}

func TestStore_Prune_RemovesTheOldestUnused(t *testing.T) {
	dir := t.TempDir()
	objects := &fakeObjects{}
	s := mustOpen(t, dir, 250, objects)
	ids := map[string]string{}
	get := func(name string) *Lease {
		l, err := s.Get(t.Context(), agent.FunctionCode{Source: objects.put(name, zipOf(t, file{name, 0o644, strings.Repeat("x", 100)}))})
		require.NoError(t, err)
		ids[name] = l.IDs[0]
		return l
	}
	age := func(name string, by time.Duration) {
		then := time.Now().Add(-by)
		require.NoError(t, os.Chtimes(s.path("trees", ids[name], "info.json"), then, then))
	}
	held := get("held")
	for i, name := range []string{"mounted", "oldest", "older", "newer", "newest"} {
		get(name).Release()
		age(name, time.Duration(10-i)*time.Hour)
	}
	age("held", 20*time.Hour)
	require.NoError(t, s.Prune(func(id string) bool { return id == ids["mounted"] }))
	for name, stays := range map[string]bool{"held": true, "mounted": true, "oldest": false, "older": false, "newer": true, "newest": true} {
		_, err := os.Stat(s.root(ids[name]))
		assert.Equal(t, stays, err == nil, name)
	}
	refs, err := os.ReadDir(s.path("refs"))
	require.NoError(t, err)
	assert.Len(t, refs, 4)
	// What was removed is fetched again.
	asked := objects.asked.Load()
	get("oldest").Release()
	assert.Equal(t, asked+1, objects.asked.Load())
	held.Release()
	require.NoError(t, s.Prune(func(string) bool { return false }))
	assert.NoDirExists(t, s.root(ids["held"]))
}

func TestStore_Closed_RefusesAndEndsWhatRuns(t *testing.T) {
	objects := &fakeObjects{wait: make(chan struct{})}
	source := objects.put("f.zip", nil)
	s := mustOpen(t, t.TempDir(), 0, objects)
	done := make(chan error)
	go func() {
		_, err := s.Get(t.Context(), agent.FunctionCode{Source: source})
		done <- err
	}()
	require.Eventually(t, func() bool { return objects.asked.Load() == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, s.Close())
	assert.ErrorIs(t, <-done, context.Canceled)
	_, err := s.Get(t.Context(), agent.FunctionCode{Source: source})
	assert.ErrorIs(t, err, flight.ErrStopping)
}
