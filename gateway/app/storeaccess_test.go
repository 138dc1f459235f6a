package app

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
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
