package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/config"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

// openStores tells the stores what the functions of cfg may do there: the last step of a new configuration that can fail,
// and before any of its containers starts.
func (a *App) openStores(cfg *config.Config) error {
	if err := functionaccess.Save(a.settings.FunctionAccessFile, storeAccess(cfg.Functions, a.settings.AccountID, a.keys)); err != nil {
		return fmt.Errorf("FUNCTION_ACCESS_FILE: %w", err)
	}
	if a.settings.FunctionKeys && len(cfg.Functions) > 0 && !cfg.NamesStores {
		a.log.Warn("functions may use no bucket and no table, because functions.yml gives them none: say it with s3 and tables for each function, or, to open all to all, under defaults: "+
			`s3: [{bucket: "*", access: write}], tables: ["*"] (docs/stores.md; s3: [] under defaults ends this line)`, "file", a.settings.FunctionsConfigPath)
	}
	return nil
}

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
