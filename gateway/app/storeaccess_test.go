package app

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/config"
	"github.com/edge-serverless-box/esb/gateway/settings"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

type upper struct{}

func (upper) ID(function string) string { return "ID-" + function }

func TestStoreAccess_NamesEachFunctionAndWhereCodeIs(t *testing.T) {
	got := storeAccess(map[string]*gateway.Function{
		"a": {Stores: gateway.StoreAccess{
			S3:     []gateway.ObjectAccess{{Bucket: "b", Prefix: "p/"}, {Bucket: "*", Write: true}},
			Tables: []gateway.TableAccess{{Table: "t", Write: true}, {Table: "r"}},
		}},
		"b": {Code: &gateway.FunctionCode{Source: gateway.CodeSource{Location: "s3://code/b.zip"}, Layers: []gateway.CodeSource{{Location: "/srv/layer"}, {Location: "s3://layers/x/y.zip"}}}},
		"c": {Code: &gateway.FunctionCode{Source: gateway.CodeSource{Location: "s3://code/c.zip"}}},
	}, "123456789012", upper{})
	assert.Equal(t, functionaccess.List{
		Account: "123456789012", CodeBuckets: []string{"code", "layers"},
		Functions: map[string]functionaccess.Function{
			"ID-a": {
				Name:   "a",
				S3:     []functionaccess.Objects{{Bucket: "b", Prefix: "p/", Access: functionaccess.Read}, {Bucket: "*", Access: functionaccess.Write}},
				Tables: []functionaccess.Table{{Table: "t", Access: functionaccess.Write}, {Table: "r", Access: functionaccess.Read}},
			},
			"ID-b": {Name: "b"}, "ID-c": {Name: "c"},
		},
	}, got)
}

func TestCompileStoreAccess_FunctionsWithoutAnyAccess_TheOperatorReadsWhatToSet(t *testing.T) {
	keys, err := functionkeys.New([]byte("0123456789abcdef0123456789abcdef"))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "function-access.json")
	for _, c := range []struct {
		keys, named bool
		functions   map[string]*gateway.Function
		warned      bool
	}{
		{true, false, map[string]*gateway.Function{"f": {}}, true},
		{true, true, map[string]*gateway.Function{"f": {}}, false},
		{false, false, map[string]*gateway.Function{"f": {}}, false},
		{true, false, nil, false},
	} {
		var log bytes.Buffer
		a := &App{settings: settings.Settings{FunctionAccessFile: path, FunctionKeys: c.keys}, log: slog.New(slog.NewTextHandler(&log, nil)), keys: keys}
		swap, err := a.compileStoreAccess(&config.Config{Functions: c.functions, NamesStores: c.named})
		require.NoError(t, err)
		swap()
		assert.Equal(t, c.warned, bytes.Contains(log.Bytes(), []byte("level=WARN")), "%s", log.String())
		_, known := functionaccess.NewFile(path, a.log).Rights(keys.ID("f"))
		assert.Equal(t, c.functions != nil, known)
	}
}
