// Package code keeps function code and layers for containers: it fetches them from S3 or from local zip files and
// folders, checks and unpacks them once per content, and removes what nobody uses when there is too much.
//
// Below its folder: trees/<id>/root is one unpacked zip file, folder, or list of layers, id being a SHA-256 of its content;
// trees/<id>/info.json describes it, and its time is when it was last asked for; refs/ remembers which content an object
// of S3 had; tmp/ holds what is being made. A tree appears whole or not at all, and never changes.
//
// A tree may be used before it is on the disk, since waiting for that can take seconds when others write too. Its file
// synced is made when it is; a tree of an earlier boot without that may have lost data, and is removed.
package code

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/flight"
	"github.com/edge-serverless-box/esb/api/codeversion"
	"github.com/edge-serverless-box/esb/guard/statefile"
)

const (
	// fetchTimeout bounds the making of one tree. It does not end with the caller: the next one wants it too.
	fetchTimeout = 5 * time.Minute
	// attempts to get hold of a tree that is removed as soon as it is made, by a cache that is much too small.
	attempts = 3
	// taskRoot and layerRoot are where code and layers are mounted (AWS).
	taskRoot, layerRoot = "/var/task", "/opt"
	// bootstrap is what a provided runtime starts.
	bootstrap = "bootstrap"
	// synced is a file of a tree, see above.
	synced = "synced"
)

// Objects is the S3 store; *S3 is the one of production.
type Objects interface {
	// Fetch writes the object to w if it still has that ETag (without quotes). It answers with *agent.Error:
	// CodeUnavailable when trying again may help, a changed object included, CodePrecondition when not.
	Fetch(ctx context.Context, bucket, key, etag string, w io.Writer) error
}

// Config of a Store.
type Config struct {
	// Dir is the Store's folder; one Store at a time may use it.
	Dir string
	// MaxBytes bounds what is kept of trees that no container uses.
	MaxBytes int64
	// Roots are the folders of this machine that code may lie in; without any, all code is in S3.
	Roots []string
	// Objects is where s3:// locations are read from.
	Objects Objects
	Logger  *slog.Logger
}

// Store is a cache of unpacked code. Its methods may be called concurrently.
type Store struct {
	cfg  Config
	log  *slog.Logger
	boot string
	// life ends at Close; running counts what runs until then, flights lets those who want the same share the work.
	life    context.Context
	end     context.CancelFunc
	running sync.WaitGroup
	flights *flight.Group[string]
	// libraries says which trees have libraries (searched -> bool); trees never change.
	libraries sync.Map

	// mu guards pins, how often each tree is leased, and makes leasing and choosing what to remove one at a time.
	mu   sync.Mutex
	pins map[string]int
}

// info describes a tree.
type info struct {
	Bytes   int64 `json:"bytes"`
	Entries int   `json:"entries"`
	// Location it was first made of, for people.
	Location string `json:"location"`
	// Boot is the boot of the machine in which it was made.
	Boot string `json:"boot"`
}

// Open prepares the folder, and removes what an earlier Store had not finished.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("which boot of the machine is this: %w", err)
	}
	s := &Store{cfg: cfg, log: cfg.Logger, boot: strings.TrimSpace(string(boot)), pins: map[string]int{}}
	if err := os.RemoveAll(s.path("tmp")); err != nil {
		return nil, fmt.Errorf("empty the folder of function code: %w", err)
	}
	for _, dir := range []string{"tmp", "trees", "refs"} {
		if err := os.MkdirAll(s.path(dir), 0o711); err != nil {
			return nil, fmt.Errorf("make the folder of function code: %w", err)
		}
	}
	// The files inside are for every user, because they are for functions, which see them by a mount.
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("close the folder of function code to others: %w", err)
	}
	if err := s.removeUnsynced(); err != nil {
		return nil, fmt.Errorf("remove unfinished function code: %w", err)
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.flights = flight.New[string](s.life, fetchTimeout, &s.running)
	return s, nil
}

// sync writes a tree to the disk and says so in it.
func (s *Store) sync(id string) {
	tree := s.path("trees", id)
	err := syncAll(tree)
	if err == nil {
		err = os.WriteFile(filepath.Join(tree, synced), nil, 0o644)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have been removed
		s.log.Warn("function code may not survive a power failure", "digest", id, "error", err)
	}
}

// Close ends the work in progress and waits for it. Trees that containers use stay where they are.
func (s *Store) Close() error {
	s.end()
	s.running.Wait()
	return nil
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, parts...)...)
}

// Lease is code that stays where it is until Release.
type Lease struct {
	// Task is the folder to mount at /var/task; Opt the one for /opt, empty without layers.
	Task, Opt string
	// IDs of the trees that these are.
	IDs []string

	store *Store
	code  agent.FunctionCode
	once  sync.Once
}

// Get returns code and layers unpacked, in exactly the versions that c names. The error is CodeUnavailable when the
// source holds another version now or cannot be reached, CodePrecondition when the code is not acceptable.
func (s *Store) Get(ctx context.Context, c agent.FunctionCode) (_ *Lease, err error) {
	l := &Lease{store: s, code: c}
	// Only what will be mounted stays leased: the trees of single layers are not, when they are merged.
	var parts []string
	defer func() {
		s.unpin(parts...)
		if err != nil {
			l.Release()
		}
	}()
	task, err := s.get(ctx, c.Source)
	if err != nil {
		return nil, err
	}
	l.IDs = append(l.IDs, task.id)
	l.Task = s.root(task.id)
	total := task.Bytes
	var layers []tree
	for _, source := range c.Layers {
		layer, err := s.get(ctx, source)
		if err != nil {
			return nil, err
		}
		parts = append(parts, layer.id)
		layers = append(layers, layer)
		total += layer.Bytes
	}
	if total > codeversion.MaxBytes {
		return nil, agent.Errorf(agent.CodePrecondition, "%s: code and layers have %d bytes unpacked, at most %d are allowed",
			c.Source.Location, total, codeversion.MaxBytes)
	}
	if len(layers) == 0 {
		return l, nil
	}
	opt, err := s.merged(ctx, layers)
	if err != nil {
		return nil, err
	}
	l.IDs = append(l.IDs, opt.id)
	l.Opt = s.root(opt.id)
	return l, nil
}

// Release lets the cache remove the trees when it has to, unless a container uses them. It may be called again.
func (l *Lease) Release() { l.once.Do(func() { l.store.unpin(l.IDs...) }) }

// Bootstrap returns the program that a provided runtime starts, as a path in the container.
func (l *Lease) Bootstrap() (string, error) {
	for _, place := range []struct{ dir, mounted string }{{l.Task, taskRoot}, {l.Opt, layerRoot}} {
		if place.dir == "" {
			continue
		}
		found, err := statIn(place.dir, bootstrap)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		name := place.mounted + "/" + bootstrap
		switch {
		case err != nil:
			return "", fmt.Errorf("look at %s: %w", name, err)
		case found.Mode().Type() == fs.ModeSymlink:
			return name, nil // where it leads is known in the container alone
		case !found.Mode().IsRegular():
			return "", agent.Errorf(agent.CodePrecondition, "%s: bootstrap is not a file", l.code.Source.Location)
		case found.Mode()&0o111 == 0:
			return "", agent.Errorf(agent.CodePrecondition,
				"%s: bootstrap (%s) is not executable: chmod 755 it, and zip it with a tool that keeps modes", l.code.Source.Location, name)
		}
		return name, nil
	}
	return "", agent.Errorf(agent.CodePrecondition,
		"%s: runtime %s needs a program named bootstrap at the top of the code or of a layer, and there is none", l.code.Source.Location, l.code.Runtime)
}

// statIn looks at a file. It follows links, but not out of dir: one that leads elsewhere is described itself.
func statIn(dir, name string) (fs.FileInfo, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	found, err := root.Stat(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return found, err
	}
	if link, lstatErr := root.Lstat(name); lstatErr == nil && link.Mode().Type() == fs.ModeSymlink {
		return link, nil
	}
	return nil, err
}

// tree is one leased tree.
type tree struct {
	info
	id string
}

func (s *Store) root(id string) string { return s.path("trees", id, "root") }

// get leases the tree of one source.
func (s *Store) get(ctx context.Context, source agent.CodeSource) (tree, error) {
	if _, _, object := ParseS3(source.Location); !object {
		// Also for code that is there already.
		if _, _, err := s.rootOf(source.Location); err != nil {
			return tree{}, err
		}
	}
	return s.lease(ctx, source.Location, "source "+source.Location+" "+source.Version,
		func() string { return s.known(source) },
		func(ctx context.Context, dir string) (string, info, error) { return s.fetch(ctx, source, dir) })
}

// merged leases the tree of several layers.
func (s *Store) merged(ctx context.Context, layers []tree) (tree, error) {
	sum := sha256.New()
	_, _ = io.WriteString(sum, "esb layers 1\n")
	var roots []string
	all := info{Location: "layers"}
	for _, l := range layers {
		_, _ = fmt.Fprintln(sum, l.id)
		roots = append(roots, s.root(l.id))
		all.Bytes += l.Bytes
		all.Entries += l.Entries
	}
	id := hex.EncodeToString(sum.Sum(nil))
	if len(layers) == 1 {
		id = layers[0].id
	}
	return s.lease(ctx, all.Location, "layers "+id, func() string { return id },
		func(ctx context.Context, dir string) (string, info, error) {
			return id, all, merge(ctx, dir, roots)
		})
}

// lease leases a tree whose id known says, when it is known; else make fills an empty folder and says what it made.
func (s *Store) lease(ctx context.Context, location, key string, known func() string,
	fill func(ctx context.Context, dir string) (string, info, error),
) (tree, error) {
	for range attempts {
		if id := known(); id != "" {
			if t, ok := s.pin(id); ok {
				return t, nil
			}
		}
		id, err := s.flights.Do(ctx, key, func(ctx context.Context) (string, error) { return s.make(ctx, fill) })
		if err != nil {
			return tree{}, err
		}
		if t, ok := s.pin(id); ok {
			return t, nil
		}
	}
	return tree{}, agent.Errorf(agent.CodeUnavailable, "%s: is removed from the cache as soon as it is there: raise CODE_CACHE_MB", location)
}

// make makes a tree in tmp and moves it to its place.
func (s *Store) make(ctx context.Context, fill func(ctx context.Context, dir string) (string, info, error)) (_ string, err error) {
	begin := time.Now()
	staging, err := os.MkdirTemp(s.path("tmp"), "tree-")
	if err != nil {
		return "", fmt.Errorf("make a folder for function code: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	dir := filepath.Join(staging, "root")
	// Chmod, for whatever umask the agent has.
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755), os.Chmod(staging, 0o711)); err != nil {
		return "", fmt.Errorf("make a folder for function code: %w", err)
	}
	id, about, err := fill(ctx, dir)
	if err != nil {
		return "", err
	}
	about.Boot = s.boot
	data, err := statefile.CodeTree().Encode(about)
	if err != nil {
		return "", fmt.Errorf("describe %s: %w", about.Location, err)
	}
	if err := os.WriteFile(filepath.Join(staging, "info.json"), data, 0o644); err != nil {
		return "", fmt.Errorf("describe %s: %w", about.Location, err)
	}
	if err := s.keep(ctx, staging, id); err != nil {
		return "", fmt.Errorf("keep %s: %w", about.Location, err)
	}
	s.running.Go(func() { s.sync(id) })
	s.log.InfoContext(ctx, "function code unpacked", "location", about.Location, "digest", id, "bytes", about.Bytes,
		"entries", about.Entries, "duration_ms", time.Since(begin).Milliseconds())
	return id, nil
}

// syncAll writes everything of dir's file system to disk: one call, however many files there are.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// pin leases a tree, false when it is not there.
func (s *Store) pin(id string) (tree, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	about, err := s.describe(id)
	if err != nil {
		return tree{}, false
	}
	s.pins[id]++
	now := time.Now()
	_ = os.Chtimes(s.path("trees", id, "info.json"), now, now) // it would only be removed earlier than others
	return tree{info: about, id: id}, true
}

func (s *Store) unpin(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if s.pins[id]--; s.pins[id] <= 0 {
			delete(s.pins, id)
		}
	}
}

func (s *Store) describe(id string) (about info, err error) {
	err = statefile.CodeTree().Read(s.path("trees", id, "info.json"), &about)
	return about, err
}

// known returns the id of a source's tree, "" when nobody knows it yet.
func (s *Store) known(source agent.CodeSource) string {
	if id, ok := strings.CutPrefix(source.Version, codeversion.Content); ok {
		return id
	}
	id, err := os.ReadFile(s.ref(source))
	if err != nil {
		return ""
	}
	return string(id)
}

func (s *Store) ref(source agent.CodeSource) string {
	sum := sha256.Sum256([]byte(source.Location + "\n" + source.Version))
	return s.path("refs", hex.EncodeToString(sum[:]))
}

// remember writes down which content an object had.
func (s *Store) remember(source agent.CodeSource, id string) error {
	f, err := os.CreateTemp(s.path("tmp"), "ref-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(id)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.ref(source))
	}
	return err
}
