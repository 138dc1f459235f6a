package provision

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// patience is for what must happen, however slow the machine.
const patience = 60 * time.Second

// tables is a DynamoDB store as far as the provisioner uses one. It keeps what CreateTable was given and answers with it,
// which is how a description looks too.
type tables struct {
	mu     sync.Mutex
	made   map[string]map[string]any
	ttl    map[string]any
	calls  map[string]int
	refuse map[string]string // operations that are refused, with the code
	ignore map[string]bool   // operations that are accepted and not done
}

func newTables() *tables {
	return &tables{made: map[string]map[string]any{}, ttl: map[string]any{}, calls: map[string]int{}, refuse: map[string]string{}, ignore: map[string]bool{}}
}

func (s *tables) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	var in map[string]any
	_ = json.NewDecoder(r.Body).Decode(&in)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[operation]++
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if code, refused := s.refuse[operation]; refused {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": "com.amazonaws.dynamodb.v20120810#" + code, "message": "no"})
		return
	}
	name, _ := in["TableName"].(string)
	table, there := s.made[name]
	if !there && name != "" && operation != "CreateTable" {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"})
		return
	}
	answer := map[string]any{}
	switch {
	case s.ignore[operation]:
	case operation == "CreateTable":
		in["TableStatus"] = "ACTIVE"
		in["BillingModeSummary"] = map[string]any{"BillingMode": in["BillingMode"]}
		s.made[name] = in
	case operation == "UpdateTable":
		if stream, ok := in["StreamSpecification"]; ok {
			table["StreamSpecification"] = stream
		}
	case operation == "UpdateTimeToLive":
		s.ttl[name] = in["TimeToLiveSpecification"].(map[string]any)["AttributeName"]
	case operation == "DescribeTable":
		answer["Table"] = table
	case operation == "DescribeTimeToLive":
		answer["TimeToLiveDescription"] = map[string]any{"TimeToLiveStatus": "DISABLED"}
		if attribute, ok := s.ttl[name]; ok {
			answer["TimeToLiveDescription"] = map[string]any{"TimeToLiveStatus": "ENABLED", "AttributeName": attribute}
		}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *tables) count(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

// buckets is an S3 store as far as the provisioner uses one.
type buckets struct {
	mu       sync.Mutex
	made     map[string]string // the body of the request
	versions map[string]bool
	foreign  map[string]bool
	calls    []string
}

func newBuckets() *buckets {
	return &buckets{made: map[string]string{}, versions: map[string]bool{}, foreign: map[string]bool{}}
}

func (s *buckets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	name := strings.Trim(r.URL.Path, "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, r.Method+" "+name)
	_, there := s.made[name]
	switch {
	case name == "":
		_, _ = io.WriteString(w, "<ListAllMyBucketsResult/>")
	case s.foreign[name]:
		w.WriteHeader(http.StatusForbidden)
	case r.Method == http.MethodHead && !there:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPut && r.URL.Query().Has("versioning"):
		s.versions[name] = true
	case r.Method == http.MethodPut:
		s.made[name] = string(body)
	case r.Method == http.MethodGet && s.versions[name]:
		_, _ = io.WriteString(w, "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
	case r.Method == http.MethodGet:
		_, _ = io.WriteString(w, "<VersioningConfiguration/>")
	}
}

func mustOpen(t *testing.T, change func(o *Options)) *Provisioner {
	t.Helper()
	o := Options{Region: "us-east-1", Logger: slog.New(slog.DiscardHandler)}
	change(&o)
	p := Open(t.Context(), o)
	t.Cleanup(p.Close)
	return p
}

func serve(t *testing.T, h http.Handler) Store {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return Store{Endpoint: s.URL, AccessKey: "a", SecretKey: "s"}
}

func awaitMade(t *testing.T, p *Provisioner) {
	t.Helper()
	require.Eventually(t, func() bool { return p.CheckResources(t.Context()) == nil }, patience, 10*time.Millisecond)
}

func items() gateway.Table {
	return gateway.Table{Name: "items", Key: gateway.TableKey{Hash: attr("id", "S")}, TTLAttribute: "expires"}
}

func TestProvisioner_EmptyStores_GetWhatIsDeclaredOnce(t *testing.T) {
	db, files := newTables(), newBuckets()
	p := mustOpen(t, func(o *Options) { o.DynamoDB, o.S3, o.Region = serve(t, db), serve(t, files), "eu-west-1" })
	want := gateway.Resources{Tables: []gateway.Table{items()}, Buckets: []gateway.Bucket{{Name: "plain"}, {Name: "kept", Versioning: true}}}
	for range 2 {
		p.Apply(want)
		awaitMade(t, p)
	}
	assert.Empty(t, p.Notes())
	assert.Equal(t, "expires", db.ttl["items"])
	assert.Equal(t, 1, db.count("CreateTable"))
	assert.Equal(t, 1, db.count("UpdateTimeToLive"))
	assert.Contains(t, files.made["plain"], "<LocationConstraint>eu-west-1</LocationConstraint>")
	assert.Equal(t, map[string]bool{"kept": true}, files.versions)
	assert.NoError(t, testutil.CollectAndCompare(p, strings.NewReader(`
# HELP esb_resources Tables and buckets of resources.yml by status; those that differ are in the log and in /readyz.
# TYPE esb_resources gauge
esb_resources{status="differs",store="dynamodb"} 0
esb_resources{status="differs",store="s3"} 0
esb_resources{status="made",store="dynamodb"} 1
esb_resources{status="made",store="s3"} 2
esb_resources{status="pending",store="dynamodb"} 0
esb_resources{status="pending",store="s3"} 0
`)))

	// What is no longer declared stays.
	p.Apply(gateway.Resources{})
	awaitMade(t, p)
	assert.Contains(t, db.made, "items")
	assert.Len(t, files.made, 2)
}

func TestProvisioner_StoreDown_IsTriedAgainUntilItIsThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	p := mustOpen(t, func(o *Options) { o.DynamoDB = Store{Endpoint: "http://" + addr, AccessKey: "a", SecretKey: "s"} })
	p.Apply(gateway.Resources{Tables: []gateway.Table{items()}})
	require.Eventually(t, func() bool {
		err := p.CheckResources(t.Context())
		return err != nil && strings.Contains(err.Error(), "connection refused")
	}, patience, 10*time.Millisecond)
	assert.ErrorContains(t, p.CheckResources(t.Context()), "table items is not made yet: describe the table")
	assert.ErrorContains(t, p.CheckDynamoDB(t.Context()), "list tables")
	assert.NoError(t, p.CheckS3(t.Context()), "a store that is not used is not down")

	l, err = net.Listen("tcp", addr)
	require.NoError(t, err)
	s := &http.Server{Handler: newTables(), ReadHeaderTimeout: time.Second}
	t.Cleanup(func() { _ = s.Close() })
	go func() { _ = s.Serve(l) }()
	awaitMade(t, p)
	require.Eventually(t, func() bool { return p.CheckDynamoDB(t.Context()) == nil }, patience, 10*time.Millisecond)
}

func TestProvisioner_Differences_AreReportedAndLeft(t *testing.T) {
	for name, c := range map[string]struct {
		want    gateway.Resources
		prepare func(db *tables, files *buckets)
		notes   []string
		check   func(t *testing.T, db *tables)
	}{
		"another key": {
			want: gateway.Resources{Tables: []gateway.Table{items()}},
			prepare: func(db *tables, _ *buckets) {
				db.made["items"] = map[string]any{
					"TableStatus": "ACTIVE", "KeySchema": []any{map[string]any{"AttributeName": "name", "KeyType": "HASH"}},
					"AttributeDefinitions": []any{map[string]any{"AttributeName": "name", "AttributeType": "S"}},
				}
			},
			notes: []string{"table items: its key is name S in the store, and id S in resources.yml: a key cannot be changed; give the new table another name"},
			check: func(t *testing.T, db *tables) {
				assert.Equal(t, "expires", db.ttl["items"], "what can be changed is")
			},
		},
		"a change that is refused": {
			want:    gateway.Resources{Tables: []gateway.Table{items()}},
			prepare: func(db *tables, _ *buckets) { db.refuse["UpdateTimeToLive"] = "ValidationException" },
			notes:   []string{"table items: the store was asked to let items expire by expires and refuses: ValidationException: no"},
		},
		"a change that is ignored": {
			want:    gateway.Resources{Tables: []gateway.Table{items()}},
			prepare: func(db *tables, _ *buckets) { db.ignore["UpdateTimeToLive"] = true },
			notes:   []string{"table items: the store was asked to let items expire by expires and has not done it"},
			check: func(t *testing.T, db *tables) {
				assert.Equal(t, 1, db.count("UpdateTimeToLive"), "it is asked once")
			},
		},
		"a table that is refused": {
			want:    gateway.Resources{Tables: []gateway.Table{items()}},
			prepare: func(db *tables, _ *buckets) { db.refuse["CreateTable"] = "ValidationException" },
			notes:   []string{"table items: the store refuses to make the table: ValidationException: no"},
		},
		"a bucket of somebody else": {
			want:    gateway.Resources{Buckets: []gateway.Bucket{{Name: "theirs"}}},
			prepare: func(_ *tables, files *buckets) { files.foreign["theirs"] = true },
			notes:   []string{"bucket theirs: the store refuses to look for the bucket: Forbidden: Forbidden"},
		},
		"versioning that is not declared": {
			want:    gateway.Resources{Buckets: []gateway.Bucket{{Name: "files"}}},
			prepare: func(_ *tables, files *buckets) { files.made["files"], files.versions["files"] = "", true },
			notes:   []string{"bucket files: keeps versions in the store, and resources.yml does not say so: add versioning: true, or suspend it by hand"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, files := newTables(), newBuckets()
			c.prepare(db, files)
			p := mustOpen(t, func(o *Options) { o.DynamoDB, o.S3 = serve(t, db), serve(t, files) })
			p.Apply(c.want)
			awaitMade(t, p)
			assert.Equal(t, c.notes, p.Notes())
			if c.check != nil {
				c.check(t, db)
			}
		})
	}
}

func TestProvisioner_StoreOff_SaysSo(t *testing.T) {
	p := mustOpen(t, func(*Options) {})
	p.Apply(gateway.Resources{Tables: []gateway.Table{items()}, Buckets: []gateway.Bucket{{Name: "files"}}})
	awaitMade(t, p)
	assert.Equal(t, []string{
		"table items: DYNAMODB_ENDPOINT is off, so that it is not made: set it to the store's URL, or remove the resource",
		"bucket files: S3_ENDPOINT is off, so that it is not made: set it to the store's URL, or remove the resource",
	}, p.Notes())
}

func TestCheck_ManyAsk_OneRequest(t *testing.T) {
	db := newTables()
	p := mustOpen(t, func(o *Options) { o.DynamoDB = serve(t, db) })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { assert.NoError(t, p.CheckDynamoDB(t.Context())) })
	}
	wg.Wait()
	assert.Less(t, db.count("ListTables"), 20)
}
