package logship

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent/logshare"
	"github.com/edge-serverless-box/esb/guard/logfile"
)

// patience bounds every wait; it says nothing about how long anything takes.
const patience = 5 * time.Minute

// fakeStore is a VictoriaLogs that can fail, and counts how often it got each message.
type fakeStore struct {
	*httptest.Server
	mu       sync.Mutex
	got      map[string]int
	requests []*http.Request
	sizes    []int
	status   int  // answered instead of taking the batch, when not 0
	hangUp   bool // the batch is taken, but the answer is lost
}

func mustStore(t *testing.T) *fakeStore {
	t.Helper()
	f := &fakeStore{got: map[string]int{}}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.requests = append(f.requests, r)
		f.sizes = append(f.sizes, len(body))
		if f.status != 0 {
			http.Redirect(w, r, "/elsewhere", f.status)
			return
		}
		for line := range bytes.Lines(body) {
			var record struct {
				Message   string
				Container string `json:"container_name"`
			}
			if json.Unmarshal(line, &record) == nil {
				f.got[record.Container+" "+record.Message]++
			}
		}
		if f.hangUp {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fakeStore) set(status int, hangUp bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.hangUp = status, hangUp
}

func (f *fakeStore) counts() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.got)
}

func (f *fakeStore) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.requests)
}

// once waits until the store has exactly these messages, each once.
func (f *fakeStore) once(t *testing.T, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(f.counts()) >= len(want) }, patience, 5*time.Millisecond)
	expected := map[string]int{}
	for _, w := range want {
		expected[w]++
	}
	assert.Equal(t, expected, f.counts())
}

// alive holds the containers that run.
type alive struct {
	mu   sync.Mutex
	gone map[string]bool
}

func (a *alive) container(name string) Container {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Container{Supervised: true, Alive: !a.gone[name]}
}

func (a *alive) end(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone == nil {
		a.gone = map[string]bool{}
	}
	a.gone[name] = true
}

func config(t *testing.T, url string) (Config, *alive) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, functionsDir), 0o755))
	containers := &alive{}
	return Config{
		Dir: dir, URL: url, BatchBytes: 16 << 10, Interval: 10 * time.Millisecond, MaxBytes: 64 << 20,
		Container: containers.container, Logger: slog.New(slog.DiscardHandler),
	}, containers
}

func mustOpen(t *testing.T, cfg Config, options ...func(*Shipper)) *Shipper {
	t.Helper()
	s, err := newShipper(cfg)
	require.NoError(t, err)
	for _, o := range options {
		o(s)
	}
	go s.run()
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

// mustAppend appends to the log of a container, as its shim does.
func mustAppend(t *testing.T, cfg Config, name, text string) string {
	t.Helper()
	path := filepath.Join(cfg.Dir, functionsDir, name+".log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return path
}

// numbered returns n lines, and the messages that the store has to get of them.
func numbered(container, word string, n int) (text string, messages []string) {
	var b strings.Builder
	for i := range n {
		line := fmt.Sprintf("%s %d %s", word, i, strings.Repeat("x", 80))
		b.WriteString(line + "\n")
		messages = append(messages, container+" "+line)
	}
	return b.String(), messages
}

func TestShipper_RequestsAreWhatVictoriaLogsTakes(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL+"/")
	cfg.User, cfg.Password = "me", "secret"
	mustAppend(t, cfg, "lambda-f-1", "hello\n")
	mustOpen(t, cfg)
	store.once(t, "lambda-f-1 hello")
	r := store.requests[0]
	assert.Equal(t, "/insert/jsonline", r.URL.Path)
	assert.Equal(t, "container_name,job", r.URL.Query().Get("_stream_fields"))
	assert.Equal(t, "message", r.URL.Query().Get("_msg_field"))
	assert.Equal(t, "time", r.URL.Query().Get("_time_field"))
	assert.Equal(t, "application/stream+json", r.Header.Get("Content-Type"))
	user, password, _ := r.BasicAuth()
	assert.Equal(t, "me secret", user+" "+password)
}

// A redirect or a client error may come from a wrong port or a proxy: it must not count as taken, nor lose lines.
func TestShipper_StoreFails_KeepsTheBatchAndSendsItAgain(t *testing.T) {
	for name, status := range map[string]int{"down": 503, "refuses": 400, "redirects": 302} {
		t.Run(name, func(t *testing.T) {
			store := mustStore(t)
			store.set(status, false)
			cfg, _ := config(t, store.URL)
			text, messages := numbered("lambda-f-1", "line", 300)
			mustAppend(t, cfg, "lambda-f-1", text)
			s := mustOpen(t, cfg)
			require.Eventually(t, func() bool { return s.Stats().Failures >= 2 }, patience, time.Millisecond)
			assert.Positive(t, s.Stats().BacklogBytes)
			store.set(0, false)
			store.once(t, messages...)
			for _, size := range store.sizes {
				assert.Less(t, size, cfg.BatchBytes+1000)
			}
		})
	}
}

func TestShipper_KilledBetweenAnyTwoSteps_DeliversAtMostOneBatchTwice(t *testing.T) {
	text, messages := numbered("lambda-f-1", "line", 2000)
	for name, kill := range map[string]func(*fakeStore, *Shipper){
		// The batch is taken; its offsets are never written.
		"after the store has taken a batch": func(_ *fakeStore, s *Shipper) {
			n := 0
			s.keep = func(path string, o offsets) error {
				if n++; n > 3 {
					return errors.New("killed")
				}
				return writeOffsets(path, o)
			}
		},
		// The new offsets are beside the old ones, not in their place.
		"while offsets are written": func(_ *fakeStore, s *Shipper) {
			n := 0
			s.keep = func(path string, o offsets) error {
				if n++; n > 3 {
					return errors.Join(errors.New("killed"), os.WriteFile(path+".tmp", []byte(`{"version":1,"fi`), 0o644))
				}
				return writeOffsets(path, o)
			}
		},
		"before the store has taken anything": func(f *fakeStore, _ *Shipper) { f.set(503, false) },
	} {
		t.Run(name, func(t *testing.T) {
			store := mustStore(t)
			cfg, _ := config(t, store.URL)
			mustAppend(t, cfg, "lambda-f-1", text)
			first := mustOpen(t, cfg, func(s *Shipper) { kill(store, s) })
			require.Eventually(t, func() bool { return first.Stats().Failures > 0 || store.asked() == 4 }, patience, time.Millisecond)
			require.NoError(t, first.Close())
			store.set(0, false)
			mustOpen(t, cfg)
			require.Eventually(t, func() bool { return len(store.counts()) == len(messages) }, patience, time.Millisecond)
			twice := 0
			for _, n := range store.counts() {
				assert.LessOrEqual(t, n, 2)
				twice += (n - 1) * 100
			}
			assert.LessOrEqual(t, twice, cfg.BatchBytes)
		})
	}
}

func TestShipper_AnswerIsLost_DeliversOneBatchTwice(t *testing.T) {
	store := mustStore(t)
	store.set(0, true)
	cfg, _ := config(t, store.URL)
	text, messages := numbered("lambda-f-1", "line", 1000)
	mustAppend(t, cfg, "lambda-f-1", text)
	s := mustOpen(t, cfg)
	require.Eventually(t, func() bool { return s.Stats().Failures >= 1 }, patience, time.Millisecond)
	store.set(0, false)
	require.Eventually(t, func() bool { return len(store.counts()) == len(messages) }, patience, time.Millisecond)
	batch := 0
	for _, n := range store.counts() {
		if n > 1 {
			batch++
		}
	}
	assert.Positive(t, batch)
	assert.LessOrEqual(t, batch*100, cfg.BatchBytes)
}

func TestShipper_RestartedInOrder_DeliversNothingTwice(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	var all []string
	for round := range 5 {
		text, messages := numbered("lambda-f-1", fmt.Sprint("round", round), 300)
		mustAppend(t, cfg, "lambda-f-1", text)
		all = append(all, messages...)
		s := mustOpen(t, cfg)
		require.Eventually(t, func() bool { return s.Stats().Lines > 0 }, patience, time.Millisecond)
		require.NoError(t, s.Close())
	}
	mustOpen(t, cfg)
	store.once(t, all...)
}

func TestShipper_FollowsRotation_AlsoWhileTheStoreIsDown(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	log, err := logfile.OpenRotating(filepath.Join(cfg.Dir, "agent.log"), 1<<20, 0o640)
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	write := func(word string, n int) (want []string) {
		for i := range n {
			line := fmt.Sprintf("%s %d %s", word, i, strings.Repeat("x", 200))
			_, err := fmt.Fprintf(log, "{\"time\":%q,\"msg\":%q}\n", time.Now().UTC().Format(time.RFC3339Nano), line)
			require.NoError(t, err)
			want = append(want, "agent "+line)
		}
		return want
	}
	want := write("before", 100)
	mustOpen(t, cfg)
	store.once(t, want...)
	store.set(503, false)
	want = append(want, write("meanwhile", 2500)...) // two rotations
	rotated, err := filepath.Glob(filepath.Join(cfg.Dir, "agent.log.*"))
	require.NoError(t, err)
	require.Len(t, rotated, 2)
	store.set(0, false)
	store.once(t, want...)
	// Under load, a rotation at any moment.
	want = append(want, write("load", 2000)...)
	store.once(t, want...)
}

func TestShipper_FileIsCut_ShipsTheNewContent(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	path := mustAppend(t, cfg, "lambda-f-1", "one\ntwo\nthree\n")
	mustOpen(t, cfg)
	store.once(t, "lambda-f-1 one", "lambda-f-1 two", "lambda-f-1 three")
	require.NoError(t, os.Truncate(path, 0))
	// Longer than before: only the content tells that it is another one.
	mustAppend(t, cfg, "lambda-f-1", "four is longer than what was there before\n")
	store.once(t, "lambda-f-1 one", "lambda-f-1 two", "lambda-f-1 three", "lambda-f-1 four is longer than what was there before")
}

func TestShipper_PartialLine_WaitsForItsEndOrForThatOfTheContainer(t *testing.T) {
	store := mustStore(t)
	cfg, containers := config(t, store.URL)
	s := mustOpen(t, cfg)
	mustAppend(t, cfg, "lambda-f-1", "whole\nhalf")
	store.once(t, "lambda-f-1 whole")
	mustAppend(t, cfg, "lambda-f-1", " line\nlast wor")
	store.once(t, "lambda-f-1 whole", "lambda-f-1 half line")
	mustAppend(t, cfg, "lambda-f-1", "d")
	containers.end("lambda-f-1")
	store.once(t, "lambda-f-1 whole", "lambda-f-1 half line", "lambda-f-1 last word")
	require.Eventually(t, func() bool { return s.Stats().BacklogBytes == 0 }, patience, time.Millisecond)
}

func TestShipper_OverLongLine_IsCutWithoutWaitingForItsEnd(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	cfg.BatchBytes = 4 << 20
	mustAppend(t, cfg, "lambda-f-1", strings.Repeat("y", 3<<20))
	s := mustOpen(t, cfg)
	// Two pieces go at once; what may still become a longer line waits.
	require.Eventually(t, func() bool { return s.Stats().BacklogBytes == 1<<20 }, patience, time.Millisecond)
	total := 0
	for text := range store.counts() {
		total = max(total, strings.Count(text, "y"))
	}
	assert.Equal(t, messageLimit, total)
}

// Device and inode numbers change when a folder is restored, or a disk is found under another number after a reboot.
func TestShipper_RestoredFolder_ShipsNothingTwice(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	path := mustAppend(t, cfg, "lambda-f-1", "one\ntwo\n")
	first := mustOpen(t, cfg)
	store.once(t, "lambda-f-1 one", "lambda-f-1 two")
	require.Eventually(t, func() bool { return first.Stats().BacklogBytes == 0 }, patience, time.Millisecond)
	require.NoError(t, first.Close())
	require.NoError(t, os.Rename(path, path+".old")) // keeps the inode from being used again
	mustAppend(t, cfg, "lambda-f-1", "one\ntwo\nthree\n")
	mustOpen(t, cfg)
	store.once(t, "lambda-f-1 one", "lambda-f-1 two", "lambda-f-1 three")
}

func TestShipper_DamagedOffsets_ShipsAllAgainAndKeepsTheFile(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	mustAppend(t, cfg, "lambda-f-1", "one\n")
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, offsetsFile), []byte("{"), 0o644))
	mustOpen(t, cfg)
	store.once(t, "lambda-f-1 one")
	assert.FileExists(t, filepath.Join(cfg.Dir, offsetsFile+".damaged"))
}

func TestOpen_OffsetsOfANewerEsb_AreRefusedAndKept(t *testing.T) {
	cfg, _ := config(t, "")
	path := filepath.Join(cfg.Dir, offsetsFile)
	require.NoError(t, os.MkdirAll(cfg.Dir, 0o700))
	require.NoError(t, os.WriteFile(path, []byte(`{"version": 2}`), 0o600))
	_, err := newShipper(cfg)
	require.ErrorContains(t, err, path+" is of version 2")
	require.ErrorContains(t, err, "Use the newer esb again, or move the file away")
	assert.FileExists(t, path)
	assert.NoFileExists(t, path+".damaged")
}

func used(t *testing.T, cfg Config) (total int64) {
	t.Helper()
	s := &Shipper{cfg: cfg}
	files, err := s.list()
	require.NoError(t, err)
	for _, f := range files {
		total += f.used
	}
	return total
}

func TestShipper_BoundedDisk_ShippedLinesMakeRoom_NoneIsLost(t *testing.T) {
	store := mustStore(t)
	cfg, containers := config(t, store.URL)
	cfg.MaxBytes = 1 << 20
	cfg.BatchBytes = 256 << 10
	s := mustOpen(t, cfg)
	var want []string
	for round := range 10 {
		// Also those of ended containers, which are removed as a whole.
		name := fmt.Sprintf("lambda-g-%d", round)
		text, messages := numbered(name, "line", 500)
		mustAppend(t, cfg, name, text)
		containers.end(name)
		want = append(want, messages...)
		text, messages = numbered("lambda-f-1", fmt.Sprint("round", round), 3000)
		mustAppend(t, cfg, "lambda-f-1", text)
		want = append(want, messages...)
		require.Eventually(t, func() bool { return s.Stats().Lines == int64(len(want)) }, patience, time.Millisecond)
	}
	store.once(t, want...)
	assert.Zero(t, s.Stats().DroppedLines)
	require.Eventually(t, func() bool { return used(t, cfg) <= cfg.MaxBytes/2 }, patience, time.Millisecond)
	// A restart finds its way past the holes.
	require.NoError(t, s.Close())
	mustAppend(t, cfg, "lambda-f-1", "after\n")
	mustOpen(t, cfg)
	store.once(t, append(want, "lambda-f-1 after")...)
}

func TestShipper_BoundReachedWhileTheStoreIsDown_DropsTheOldestAndCountsThem(t *testing.T) {
	store := mustStore(t)
	store.set(503, false)
	cfg, containers := config(t, store.URL)
	cfg.MaxBytes = 1 << 20
	var logged bytes.Buffer
	cfg.Logger = slog.New(slog.NewJSONHandler(&logged, nil))
	written := 0
	for i := range 4 {
		name := fmt.Sprintf("lambda-g-%d", i)
		text, messages := numbered(name, "line", 1000)
		path := mustAppend(t, cfg, name, text)
		require.NoError(t, os.Chtimes(path, noon, noon.Add(time.Duration(i)*time.Second)))
		containers.end(name)
		written += len(messages)
	}
	text, messages := numbered("lambda-f-1", "line", 20_000)
	mustAppend(t, cfg, "lambda-f-1", text)
	written += len(messages)
	s := mustOpen(t, cfg)
	require.Eventually(t, func() bool { return s.Stats().DroppedLines > 0 && used(t, cfg) <= cfg.MaxBytes }, patience, time.Millisecond)
	store.set(0, false)
	dropped := s.Stats().DroppedLines
	require.Eventually(t, func() bool { return s.Stats().BacklogBytes == 0 }, patience, time.Millisecond)
	got := store.counts()
	assert.Contains(t, got, messages[len(messages)-1], "the newest are kept")
	// The batch that was being sent when its lines were dropped was in memory.
	assert.InDelta(t, written, int64(len(got))+dropped, float64(cfg.BatchBytes)/90)
	assert.GreaterOrEqual(t, int64(len(got))+dropped, int64(written), "every line is delivered or counted")
	require.NoError(t, s.Close())
	assert.Contains(t, logged.String(), "log lines were dropped")
	reopened := mustOpen(t, cfg)
	assert.Equal(t, dropped, reopened.Stats().DroppedLines, "the count outlives a restart")
}

func TestShipper_NoStore_KeepsTheNewestWithinTheBound(t *testing.T) {
	cfg, containers := config(t, "")
	cfg.MaxBytes = 1 << 20
	text, _ := numbered("", "line", 20_000)
	old := mustAppend(t, cfg, "lambda-g-1", text)
	require.NoError(t, os.Chtimes(old, noon, noon))
	containers.end("lambda-g-1")
	running := mustAppend(t, cfg, "lambda-f-1", text)
	s := mustOpen(t, cfg)
	require.Eventually(t, func() bool { return used(t, cfg) <= cfg.MaxBytes }, patience, time.Millisecond)
	assert.NoFileExists(t, old)
	data, err := os.ReadFile(running)
	require.NoError(t, err)
	assert.True(t, strings.HasSuffix(string(data), text[len(text)-keepTail/2:]))
	assert.Zero(t, s.Stats().DroppedLines)
}

// A function that writes without end leaves the store to the others, and its lines are passed over for good.
func TestShipper_FunctionAboveItsShare_IsPassedOver(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	cfg.Shares = logshare.New(8<<10, cfg.Logger)
	loud, _ := numbered("lambda-loud-1", "line", 500)
	quiet, messages := numbered("lambda-quiet-1", "line", 10)
	mustAppend(t, cfg, "lambda-loud-1", loud)
	s := mustOpen(t, cfg)
	// The gateway's and the agent's lines have no share.
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "agent.log"), []byte(strings.Repeat("a service\n", 200)), 0o644))
	require.Eventually(t, func() bool { return cfg.Shares.Refused() > 0 && store.counts()["agent a service"] == 200 }, patience, time.Millisecond)
	mustAppend(t, cfg, "lambda-quiet-1", quiet)
	require.Eventually(t, func() bool {
		counts := store.counts()
		for _, m := range messages {
			if counts[m] != 1 {
				return false
			}
		}
		return s.Stats().BacklogBytes == 0
	}, patience, time.Millisecond)
	got := 0
	for message := range store.counts() {
		if strings.HasPrefix(message, "lambda-loud-1 ") {
			got++
		}
	}
	assert.Positive(t, got)
	assert.EqualValues(t, 500-got, cfg.Shares.Refused(), "each is counted once")
}
