package config

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/edge-serverless-box/esb/gateway"
)

// Limits of DynamoDB (developer guide, "Service, account, and table quotas").
const (
	maxGlobalIndexes = 20
	maxLocalIndexes  = 5
	// maxProjected bounds the attributes that all indexes of a table include, together.
	maxProjected = 100
	// maxAttributeName bounds the name of a key attribute in bytes.
	maxAttributeName = 255
	maxThroughput    = 40000
)

// Billing modes of a table.
const (
	payPerRequest = "PAY_PER_REQUEST"
	provisioned   = "PROVISIONED"
)

var (
	// DynamoDB: names of tables and indexes have 3 to 255 letters, digits, underscores, dashes and dots.
	tableName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)
	// S3: 3 to 63 lower case letters, digits, dots and dashes, a letter or digit at both ends, no two dots together.
	bucketName = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]|\.[a-z0-9])*[a-z0-9]$`)
)

// parseResources reads what the box's stores are to hold.
func parseResources(f file, opts Options) (gateway.Resources, []Problem) {
	var r gateway.Resources
	if f.path == "" {
		return r, nil
	}
	d := &document{path: f.path, lookupEnv: opts.LookupEnv}
	top, ok := d.open(f.data, "the key tables or buckets")
	if !ok {
		return r, d.sorted()
	}
	if v, ok := top.get("tables"); ok {
		each(v, func(name string, o *object) { r.Tables = append(r.Tables, o.table(name)) })
	}
	if v, ok := top.get("buckets"); ok {
		each(v, func(name string, o *object) { r.Buckets = append(r.Buckets, o.bucket(name)) })
	}
	top.close()
	return r, d.sorted()
}

// each reads a mapping of names to objects, in the order of the file.
func each(v value, read func(name string, o *object)) {
	entries, ok := v.object()
	if !ok {
		return
	}
	for _, name := range entries.names {
		entry := entries.fields[name]
		if entry.null() {
			continue // reported by object
		}
		if o, ok := entry.object(); ok {
			read(name, o)
		}
	}
}

func (o *object) bucket(name string) gateway.Bucket {
	b := gateway.Bucket{Name: name}
	_, notAnAddress := netip.ParseAddr(name)
	if len(name) > 63 || !bucketName.MatchString(name) || notAnAddress == nil {
		o.problemf("is not a bucket name: 3 to 63 lower case letters, digits, dashes and single dots, a letter or digit at both ends, and no IP address")
	}
	if v, ok := o.get("versioning"); ok {
		s, ok := v.oneOf("true", "false")
		b.Versioning = ok && s == "true"
	}
	o.close()
	return b
}

// table is a table while it is read.
type table struct {
	gateway.Table
	// types has the type of each key attribute, with the line that gave it first: an attribute has one.
	types map[string]typed
}

type typed struct {
	kind string
	line int
}

func (o *object) table(name string) gateway.Table {
	t := table{Table: gateway.Table{Name: name}, types: make(map[string]typed)}
	if !tableName.MatchString(name) {
		o.problemf("is not a table name: 3 to 255 letters, digits, underscores, dashes and dots")
	}
	if v, ok := o.need("key", "such as key: {hash: {id: S}}"); ok {
		t.Key = t.key(v)
	}
	t.billing(o)
	if v, ok := o.get("global_indexes"); ok {
		each(v, func(name string, o *object) { t.GlobalIndexes = append(t.GlobalIndexes, t.globalIndex(o, name)) })
		if n := len(t.GlobalIndexes); n > maxGlobalIndexes {
			v.problemf("must be at most %d (DynamoDB's limit), are %d", maxGlobalIndexes, n)
		}
	}
	if v, ok := o.get("local_indexes"); ok {
		each(v, func(name string, o *object) { t.LocalIndexes = append(t.LocalIndexes, t.localIndex(o, name)) })
		if n := len(t.LocalIndexes); n > maxLocalIndexes {
			v.problemf("must be at most %d (DynamoDB's limit), are %d", maxLocalIndexes, n)
		}
		if t.Key.Range == nil && len(t.LocalIndexes) > 0 {
			v.problemf("needs a table with a range key: give the table one, or make it a global index")
		}
	}
	t.indexes(o)
	if v, ok := o.get("stream"); ok {
		t.Stream, _ = v.oneOf("KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES")
	}
	if v, ok := o.get("ttl"); ok {
		t.TTLAttribute, _ = v.attributeName()
		if kind, isKey := t.types[t.TTLAttribute]; isKey && kind.kind != "N" {
			v.problemf("%s is a key of type %s on line %d: the attribute that expires an item must be a number (N)", t.TTLAttribute, kind.kind, kind.line)
		}
	}
	o.close()
	return t.Table
}

// indexes checks what the indexes of a table are together.
func (t *table) indexes(o *object) {
	projected := 0
	seen := make(map[string]bool)
	for _, i := range slices.Concat(t.GlobalIndexes, t.LocalIndexes) {
		projected += len(i.Include)
		if seen[i.Name] {
			o.problemf("has a global and a local index named %s: rename one", i.Name)
		}
		seen[i.Name] = true
	}
	if projected > maxProjected {
		o.problemf("has indexes that project %d attributes by name, all together at most %d (DynamoDB's limit)", projected, maxProjected)
	}
}

func (t *table) billing(o *object) {
	mode := payPerRequest
	if v, ok := o.get("billing"); ok {
		if s, ok := v.oneOf(payPerRequest, provisioned); ok {
			mode = s
		}
	}
	v, given := o.get("throughput")
	switch {
	case given && mode == payPerRequest:
		v.problemf("has no meaning with billing %s: set billing: %s, or remove it", payPerRequest, provisioned)
	case given:
		t.Throughput = v.throughput()
	case mode == provisioned:
		o.doc.problemf(o.line, join(o.key, "throughput"), "is missing: with billing %s, such as throughput: {read: 5, write: 5}", provisioned)
	}
}

func (v value) throughput() *gateway.Throughput {
	o, ok := v.object()
	if !ok {
		return nil
	}
	var t gateway.Throughput
	for _, unit := range []struct {
		name string
		to   *int
	}{{"read", &t.Read}, {"write", &t.Write}} {
		if v, ok := o.need(unit.name, "capacity units a second, such as 5"); ok {
			*unit.to, _ = v.integer(1, maxThroughput, "units")
		}
	}
	o.close()
	return &t
}

func (t *table) globalIndex(o *object, name string) gateway.Index {
	i := gateway.Index{Name: name, Throughput: t.Throughput}
	o.indexName(name)
	if v, ok := o.need("key", "such as key: {hash: {owner: S}}"); ok {
		i.Key = t.key(v)
	}
	o.projection(&i)
	if v, ok := o.get("throughput"); ok {
		if t.Throughput == nil {
			v.problemf("has no meaning with billing %s: set the table's billing: %s, or remove it", payPerRequest, provisioned)
		} else {
			i.Throughput = v.throughput()
		}
	}
	o.close()
	return i
}

// localIndex shares the table's hash key.
func (t *table) localIndex(o *object, name string) gateway.Index {
	i := gateway.Index{Name: name, Key: gateway.TableKey{Hash: t.Key.Hash}}
	o.indexName(name)
	if v, ok := o.need("range", "the index's range key, such as range: {created: N}"); ok {
		if a, ok := t.attribute(v); ok {
			i.Key.Range = &a
			if t.Key.Range != nil && a == *t.Key.Range {
				v.problemf("is the table's own range key: an index on it would be the table again")
			}
		}
	}
	o.projection(&i)
	o.close()
	return i
}

func (o *object) indexName(name string) {
	if !tableName.MatchString(name) {
		o.problemf("is not an index name: 3 to 255 letters, digits, underscores, dashes and dots")
	}
}

// projection is ALL (the default), KEYS_ONLY, or a list of attributes.
func (o *object) projection(i *gateway.Index) {
	i.Projection = "ALL"
	v, ok := o.get("projection")
	if !ok {
		return
	}
	if v.node.Kind != yaml.SequenceNode {
		i.Projection, _ = v.oneOf("ALL", "KEYS_ONLY")
		return
	}
	i.Projection = "INCLUDE"
	items, _ := v.list()
	if len(items) == 0 {
		v.problemf("must not be an empty list: write KEYS_ONLY for the keys alone")
	}
	for _, item := range items {
		name, ok := item.attributeName()
		if ok && slices.Contains(i.Include, name) {
			item.problemf("%s is listed twice", name)
			continue
		}
		i.Include = append(i.Include, name)
	}
}

// key reads {hash: {name: type}, range: {name: type}}.
func (t *table) key(v value) gateway.TableKey {
	var k gateway.TableKey
	o, ok := v.object()
	if !ok {
		return k
	}
	if v, ok := o.need("hash", "the attribute and its type, such as hash: {id: S}"); ok {
		k.Hash, _ = t.attribute(v)
	}
	if v, ok := o.get("range"); ok {
		if a, ok := t.attribute(v); ok {
			k.Range = &a
			if a.Name == k.Hash.Name {
				v.problemf("is the hash key too: choose another attribute")
			}
		}
	}
	o.close()
	return k
}

// attribute reads {name: type}.
func (t *table) attribute(v value) (gateway.KeyAttribute, bool) {
	o, ok := v.object()
	if !ok {
		return gateway.KeyAttribute{}, false
	}
	if len(o.names) != 1 {
		v.problemf("must be one attribute and its type, such as {id: S}, has %d", len(o.names))
		return gateway.KeyAttribute{}, false
	}
	name := o.names[0]
	kind, ok := o.get(name)
	if !ok {
		return gateway.KeyAttribute{}, false // reported by object
	}
	if len(name) > maxAttributeName || name == "" {
		kind.problemf("must have a name of 1 to %d bytes", maxAttributeName)
	}
	s, ok := kind.oneOf("S", "N", "B")
	if !ok {
		return gateway.KeyAttribute{}, false
	}
	if first, again := t.types[name]; again && first.kind != s {
		kind.problemf("%s is %s here and %s on line %d: an attribute has one type", name, s, first.kind, first.line)
		return gateway.KeyAttribute{}, false
	} else if !again {
		t.types[name] = typed{kind: s, line: kind.line}
	}
	return gateway.KeyAttribute{Name: name, Type: s}, true
}

func (v value) attributeName() (string, bool) {
	s, ok := v.text("the name of an attribute")
	if ok && (s == "" || len(s) > maxAttributeName || strings.ContainsRune(s, 0)) {
		v.problemf("must be the name of an attribute, 1 to %d bytes, got %q", maxAttributeName, s)
		return "", false
	}
	return s, ok
}
