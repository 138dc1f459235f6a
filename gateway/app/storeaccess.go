package app

import (
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

// keysOf gives the access key id of a function.
type keysOf interface{ ID(function string) string }

// storeAccess is what the functions may do at the stores.
func storeAccess(functions map[string]*gateway.Function, account string, keys keysOf) functionaccess.List {
	l := functionaccess.List{Account: account, CodeBuckets: []string{}, Functions: make(map[string]functionaccess.Function, len(functions))}
	kind := func(write bool) functionaccess.Access {
		if write {
			return functionaccess.Write
		}
		return functionaccess.Read
	}
	for name, fn := range functions {
		f := functionaccess.Function{Name: name}
		for _, o := range fn.Stores.S3 {
			f.S3 = append(f.S3, functionaccess.Objects{Bucket: o.Bucket, Prefix: o.Prefix, Access: kind(o.Write)})
		}
		for _, t := range fn.Stores.Tables {
			f.Tables = append(f.Tables, functionaccess.Table{Table: t.Table, Access: kind(t.Write)})
		}
		l.Functions[keys.ID(name)] = f
		l.CodeBuckets = append(l.CodeBuckets, codeBuckets(fn.Code)...)
	}
	slices.Sort(l.CodeBuckets)
	l.CodeBuckets = slices.Compact(l.CodeBuckets)
	return l
}

// codeBuckets are the buckets in which code or layers are.
func codeBuckets(code *gateway.FunctionCode) []string {
	if code == nil {
		return nil
	}
	var buckets []string
	for _, s := range append([]gateway.CodeSource{code.Source}, code.Layers...) {
		if location, ok := strings.CutPrefix(s.Location, "s3://"); ok {
			bucket, _, _ := strings.Cut(location, "/")
			buckets = append(buckets, bucket)
		}
	}
	return buckets
}
