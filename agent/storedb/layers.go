package storedb

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"
)

// missingLayer returns the name of a layer that containerd's list of all has and the snapshotter's own has not: containerd can neither
// show nor remove such a one, and nothing can be made on it. Snapshots of containers, which come and go, do not count.
func missingLayer(meta, layers string) (name string, err error) {
	if empty(meta) {
		return "", nil
	}
	have := map[string]bool{}
	err = view(layers, func(tx *bbolt.Tx) error {
		// v1, snapshots, a bucket for each (containerd, core/snapshots/storage/bolt.go).
		return each(bucket(tx, "v1", "snapshots"), func(name string, _ *bbolt.Bucket) { have[name] = true })
	})
	if err != nil {
		return "", err
	}
	err = view(meta, func(tx *bbolt.Tx) error {
		// v1, the namespace, snapshots, the snapshotter, a bucket for each (containerd, core/metadata/buckets.go).
		return each(bucket(tx, "v1"), func(namespace string, _ *bbolt.Bucket) {
			_ = each(bucket(tx, "v1", namespace, "snapshots", filepath.Ext(snapshotter)[1:]), func(layer string, b *bbolt.Bucket) {
				if strings.HasPrefix(layer, "sha256:") && !have[string(b.Get([]byte("name")))] {
					name = layer
				}
			})
		})
	})
	if err != nil {
		return "", err
	}
	return name, nil
}

func view(file string, look func(*bbolt.Tx) error) error {
	if empty(file) {
		return look(nil)
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	defer func() { _ = db.Close() }() // nothing was written
	return db.View(look)
}

// bucket returns the bucket of that path, nil when there is none.
func bucket(tx *bbolt.Tx, path ...string) *bbolt.Bucket {
	if tx == nil {
		return nil
	}
	b := tx.Bucket([]byte(path[0]))
	for _, name := range path[1:] {
		if b == nil {
			return nil
		}
		b = b.Bucket([]byte(name))
	}
	return b
}

// each visits the buckets in a bucket.
func each(b *bbolt.Bucket, visit func(name string, b *bbolt.Bucket)) error {
	if b == nil {
		return nil
	}
	return b.ForEachBucket(func(k []byte) error {
		visit(string(k), b.Bucket(k))
		return nil
	})
}
