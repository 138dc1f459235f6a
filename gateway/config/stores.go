package config

import (
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/edge-serverless-box/esb/gateway"
)

// Access to a store's contents.
const (
	accessRead  = "read"
	accessWrite = "write"
)

var (
	// The characters of S3's bucket names and of DynamoDB's table names, and "*" for any.
	bucketPattern = regexp.MustCompile(`^[a-z0-9*][a-z0-9.*-]{0,62}$`)
	tablePattern  = regexp.MustCompile(`^[a-zA-Z0-9_.*-]{1,255}$`)
)

// maxPrefix is S3's limit of a key, in bytes.
const maxPrefix = 1024

// objects reads which objects of S3 a function may use.
func (v value) objects() []gateway.ObjectAccess {
	v.doc.stores = true
	items, ok := v.list()
	if !ok {
		return nil
	}
	var all []gateway.ObjectAccess
	for _, item := range items {
		o, ok := item.object()
		if !ok {
			continue
		}
		var a gateway.ObjectAccess
		if v, ok := o.need("bucket", `the name of a bucket, or a pattern such as "data-*"`); ok {
			const want = `the name of a bucket, or a pattern such as "data-*"`
			if a.Bucket, ok = v.text(want); ok && !bucketPattern.MatchString(a.Bucket) {
				v.problemf("must be %s, got %q", want, a.Bucket)
			}
		}
		if v, ok := o.get("prefix"); ok {
			a.Prefix = v.keyPrefix()
		}
		a.Write = o.access()
		o.close()
		all = append(all, a)
	}
	return all
}

// keyPrefix reads what keys begin with.
func (v value) keyPrefix() string {
	s, ok := v.text("what the keys begin with, such as incoming/")
	switch {
	case !ok:
	case s == "":
		v.problemf("is empty: remove it for the whole bucket")
	case strings.HasPrefix(s, "/"):
		v.problemf("must not begin with /: keys do not, got %q", s)
	case strings.Contains(s, "*"):
		v.problemf("is no pattern: it stands for all keys that begin with it; remove the * of %q", s)
	case len(s) > maxPrefix:
		v.problemf("must be at most %d bytes, is %d", maxPrefix, len(s))
	case strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || strings.Contains(s, "/./") || strings.Contains(s, "/../"):
		v.problemf("must not have . or .. between slashes, got %q", s)
	}
	return s
}

// tables reads which tables of DynamoDB a function may use.
func (v value) tables() []gateway.TableAccess {
	v.doc.stores = true
	items, ok := v.list()
	if !ok {
		return nil
	}
	var all []gateway.TableAccess
	for _, item := range items {
		if item.node.Kind != yaml.MappingNode {
			all = append(all, gateway.TableAccess{Table: item.table(), Write: true})
			continue
		}
		o, ok := item.object()
		if !ok {
			continue
		}
		var a gateway.TableAccess
		if v, ok := o.need("table", `the name of a table, or a pattern such as "orders-*"`); ok {
			a.Table = v.table()
		}
		a.Write = o.access()
		o.close()
		all = append(all, a)
	}
	return all
}

func (v value) table() string {
	const want = `the name of a table, or a pattern such as "orders-*"`
	s, ok := v.text(want)
	if ok && !tablePattern.MatchString(s) {
		v.problemf("must be %s, got %q", want, s)
	}
	return s
}

// access reads what may be done, and says whether writing is.
func (o *object) access() bool {
	v, ok := o.need("access", accessRead+" or "+accessWrite)
	if !ok {
		return false
	}
	s, _ := v.oneOf(accessRead, accessWrite)
	return s == accessWrite
}
