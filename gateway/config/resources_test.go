package config_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/config"
)

// loadResources loads a resources file beside two empty others, and shortens the folder's name out of the error.
func loadResources(t *testing.T, resources string) (gateway.Resources, string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"functions.yml": noFunctions, "routing.yml": noRoutes, "resources.yml": resources} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	o := options()
	o.ResourcesPath = filepath.Join(dir, "resources.yml")
	c, err := config.Load(filepath.Join(dir, "functions.yml"), filepath.Join(dir, "routing.yml"), o)
	if err != nil {
		return gateway.Resources{}, strings.ReplaceAll(err.Error(), dir+"/", "")
	}
	return c.Resources, ""
}

func TestResources_EveryKey_IsTaken(t *testing.T) {
	got, problems := loadResources(t, `
tables:
  orders:
    key: {hash: {customer: S}, range: {placed: N}}
    global_indexes:
      by-state: {key: {hash: {state: S}, range: {placed: N}}, projection: [total, "note"], throughput: {read: 1, write: 2}}
      by-blob: {key: {hash: {blob: B}}}
    local_indexes:
      by-total: {range: {total: N}, projection: KEYS_ONLY}
    stream: NEW_AND_OLD_IMAGES
    ttl: ${TABLE}
    billing: PROVISIONED
    throughput:
      read: 5
      write: ${MAX}
  plain: {key: {hash: {id: S}}, billing: PAY_PER_REQUEST}
buckets:
  files: {}
  kept.files: {versioning: true}
`)
	require.Empty(t, problems)
	placed := gateway.KeyAttribute{Name: "placed", Type: "N"}
	total := gateway.KeyAttribute{Name: "total", Type: "N"}
	customer := gateway.KeyAttribute{Name: "customer", Type: "S"}
	own := &gateway.Throughput{Read: 5, Write: 7}
	assert.Equal(t, gateway.Resources{
		Tables: []gateway.Table{{
			Name: "orders", Key: gateway.TableKey{Hash: customer, Range: &placed},
			GlobalIndexes: []gateway.Index{
				{
					Name: "by-state", Key: gateway.TableKey{Hash: gateway.KeyAttribute{Name: "state", Type: "S"}, Range: &placed},
					Projection: "INCLUDE", Include: []string{"total", "note"}, Throughput: &gateway.Throughput{Read: 1, Write: 2},
				},
				{Name: "by-blob", Key: gateway.TableKey{Hash: gateway.KeyAttribute{Name: "blob", Type: "B"}}, Projection: "ALL", Throughput: own},
			},
			LocalIndexes: []gateway.Index{{Name: "by-total", Key: gateway.TableKey{Hash: customer, Range: &total}, Projection: "KEYS_ONLY"}},
			Stream:       "NEW_AND_OLD_IMAGES", TTLAttribute: "items", Throughput: own,
		}, {Name: "plain", Key: gateway.TableKey{Hash: gateway.KeyAttribute{Name: "id", Type: "S"}}}},
		Buckets: []gateway.Bucket{{Name: "files"}, {Name: "kept.files", Versioning: true}},
	}, got)
}

func TestResources_BadValue_NamesFileLineKeyAndRemedy(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"empty":            {"", "resources.yml: is empty: it needs the key tables or buckets"},
		"unknown key":      {"table: {}\n", "resources.yml:1: table: is not a known key; did you mean tables?"},
		"no key":           {"tables: {abc: {}}\n", "resources.yml:1: tables.abc.key: is missing: such as key: {hash: {id: S}}"},
		"no hash":          {"tables: {abc: {key: {}}}\n", "resources.yml:1: tables.abc.key.hash: is missing: the attribute and its type, such as hash: {id: S}"},
		"key as text":      {"tables: {abc: {key: {hash: id}}}\n", `resources.yml:1: tables.abc.key.hash: must be a mapping of keys to values, got "id"`},
		"two attributes":   {"tables: {abc: {key: {hash: {a: S, b: S}}}}\n", "resources.yml:1: tables.abc.key.hash: must be one attribute and its type, such as {id: S}, has 2"},
		"unknown type":     {"tables: {abc: {key: {hash: {id: string}}}}\n", `resources.yml:1: tables.abc.key.hash.id: must be one of S, N, B, got "string"`},
		"same key twice":   {"tables: {abc: {key: {hash: {id: S}, range: {id: S}}}}\n", "resources.yml:1: tables.abc.key.range: is the hash key too: choose another attribute"},
		"two types":        {"tables:\n  abc:\n    key: {hash: {id: S}}\n    global_indexes:\n      one: {key: {hash: {id: N}}}\n", "resources.yml:5: tables.abc.global_indexes.one.key.hash.id: id is N here and S on line 3: an attribute has one type"},
		"local, no range":  {"tables: {abc: {key: {hash: {id: S}}, local_indexes: {one: {range: {x: S}}}}}\n", "resources.yml:1: tables.abc.local_indexes: needs a table with a range key: give the table one, or make it a global index"},
		"index named same": {"tables: {abc: {key: {hash: {id: S}, range: {n: N}}, global_indexes: {one: {key: {hash: {x: S}}}}, local_indexes: {one: {range: {x: S}}}}}\n", "resources.yml:1: tables.abc: has a global and a local index named one: rename one"},
		"projection":       {"tables: {abc: {key: {hash: {id: S}}, global_indexes: {one: {key: {hash: {x: S}}, projection: SOME}}}}\n", `resources.yml:1: tables.abc.global_indexes.one.projection: must be one of ALL, KEYS_ONLY, got "SOME"`},
		"no projection":    {"tables: {abc: {key: {hash: {id: S}}, global_indexes: {one: {key: {hash: {x: S}}, projection: []}}}}\n", "resources.yml:1: tables.abc.global_indexes.one.projection: must not be an empty list: write KEYS_ONLY for the keys alone"},
		"stream":           {"tables: {abc: {key: {hash: {id: S}}, stream: true}}\n", `resources.yml:1: tables.abc.stream: must be one of KEYS_ONLY, NEW_IMAGE, OLD_IMAGE, NEW_AND_OLD_IMAGES, got "true"`},
		"ttl on a key":     {"tables: {abc: {key: {hash: {id: S}}, ttl: id}}\n", "resources.yml:1: tables.abc.ttl: id is a key of type S on line 1: the attribute that expires an item must be a number (N)"},
		"no throughput":    {"tables: {abc: {key: {hash: {id: S}}, billing: PROVISIONED}}\n", "resources.yml:1: tables.abc.throughput: is missing: with billing PROVISIONED, such as throughput: {read: 5, write: 5}"},
		"throughput":       {"tables: {abc: {key: {hash: {id: S}}, throughput: {read: 5, write: 5}}}\n", "resources.yml:1: tables.abc.throughput: has no meaning with billing PAY_PER_REQUEST: set billing: PROVISIONED, or remove it"},
		"half throughput":  {"tables: {abc: {key: {hash: {id: S}}, billing: PROVISIONED, throughput: {read: 0}}}\n", "resources.yml:1: tables.abc.throughput.read: must be 1 to 40000 units, got 0\nresources.yml:1: tables.abc.throughput.write: is missing: capacity units a second, such as 5"},
		"table name":       {"tables: {a b: {key: {hash: {id: S}}}}\n", "resources.yml:1: tables.a b: is not a table name: 3 to 255 letters, digits, underscores, dashes and dots"},
		"bucket name":      {"buckets: {Files: {}}\n", "resources.yml:1: buckets.Files: is not a bucket name: 3 to 63 lower case letters, digits, dashes and single dots, a letter or digit at both ends, and no IP address"},
		"bucket address":   {"buckets: {10.88.0.1: {}}\n", "resources.yml:1: buckets.10.88.0.1: is not a bucket name: 3 to 63 lower case letters, digits, dashes and single dots, a letter or digit at both ends, and no IP address"},
		"versioning":       {"buckets: {files: {versioning: yes}}\n", `resources.yml:1: buckets.files.versioning: must be one of true, false, got "yes"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := loadResources(t, c.content)
			assert.Equal(t, c.want, problems)
		})
	}
}

func TestResources_MissingFile_IsAnErrorUnlessOptional(t *testing.T) {
	dir := t.TempDir()
	functions, routing := filepath.Join(dir, "functions.yml"), filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(functions, []byte(noFunctions), 0o600))
	require.NoError(t, os.WriteFile(routing, []byte(noRoutes), 0o600))
	o := options()
	o.ResourcesPath = filepath.Join(dir, "no", "resources.yml")
	_, err := config.Load(functions, routing, o)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "RESOURCES_CONFIG_PATH")

	o.ResourcesOptional = true
	c, err := config.Load(functions, routing, o)
	require.NoError(t, err)
	assert.Empty(t, c.Resources)
}

func TestWatcher_ResourcesFileAppears_AppliesIt(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	functions, routing := filepath.Join(dir, "functions.yml"), filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(functions, []byte(noFunctions), 0o600))
	require.NoError(t, os.WriteFile(routing, []byte(noRoutes), 0o600))
	o := options()
	o.ResourcesPath, o.ResourcesOptional = filepath.Join(other, "resources.yml"), true
	watcher, _, err := config.Open(functions, routing, o, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	w := &watched{Watcher: watcher, applied: make(chan *config.Config, 10), log: &safeBuffer{}}
	watcher.Start(func(c *config.Config) error {
		w.applied <- c
		return nil
	})
	t.Cleanup(func() { assert.NoError(t, watcher.Close()) })
	w.write(t, o.ResourcesPath, "buckets: {files: {}}\n")
	assert.Equal(t, []gateway.Bucket{{Name: "files"}}, w.next(t).Resources.Buckets)
}
