package dynamofront

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

func TestOperation_Allowed(t *testing.T) {
	keys, list := functions(t)
	f, _ := list.Rights(keys.ID("f"))
	everything, _ := list.Rights(keys.ID("all"))
	nothing, _ := list.Rights(keys.ID("g"))
	const denied, unreadable, invalid = "AccessDeniedException", "SerializationException", "ValidationException"
	for _, c := range []struct {
		rights       functionaccess.Rights
		target, body string
		want         string // empty: allowed
	}{
		{f, "GetItem", `{"TableName":"mine"}`, ""},
		{f, "GetItem", `{"TableName":"arn:aws:dynamodb:us-east-1:123456789012:table/mine"}`, ""},
		{f, "Query", `{"TableName":"arn:aws:dynamodb:us-east-1:123456789012:table/mine/index/other"}`, invalid},
		{f, "Scan", ` { "Limit" : 1 , "TableName" : "shared-1" } `, ""},
		{f, "PutItem", `{"Item":{"TableName":{"S":"other"}},"TableName":"m\u0069ne"}`, ""},
		{f, "PutItem", `{"TableName":"shared-1"}`, denied},
		{f, "GetItem", `{"TableName":"other"}`, denied},
		{f, "GetItem", `{"TableName":"arn:aws:dynamodb:us-east-1:123456789012:table/other"}`, denied},
		{f, "GetItem", `{"TableName":"arn:aws:dynamodb:us-east-1:123456789012:table/mine/../other"}`, invalid},
		{f, "GetItem", `{"TableName":"arn:aws:s3:::table/mine"}`, invalid},
		{f, "GetItem", `{"TableName":"mine/x"}`, invalid},
		{f, "GetItem", `{"TableName":"mine","TableName":"other"}`, unreadable},
		{f, "GetItem", `{"TableName":"mine","Table\u004eame":"other"}`, unreadable},
		{f, "GetItem", `{"tablename":"mine","TableName":"other"}`, unreadable},
		{f, "GetItem", `{"TableName":["mine"]}`, unreadable},
		{f, "GetItem", `{}`, invalid},
		{f, "GetItem", `[]`, unreadable},
		{f, "GetItem", `{"TableName":"mine"`, unreadable},
		{f, "GetItem", "", unreadable},
		{f, "BatchGetItem", `{"RequestItems":{"mine":{},"shared-2":{}}}`, ""},
		{f, "BatchGetItem", `{"RequestItems":{"mine":{},"other":{}}}`, denied},
		{f, "BatchWriteItem", `{"RequestItems":{"mine":[]}}`, ""},
		{f, "BatchWriteItem", `{"RequestItems":{"shared-2":[]}}`, denied},
		{f, "BatchWriteItem", `{"RequestItems":{"mine":[]},"RequestItems":{"other":[]}}`, unreadable},
		{f, "TransactGetItems", `{"TransactItems":[{"Get":{"TableName":"mine"}},{"Get":{"TableName":"shared-2"}}]}`, ""},
		{f, "TransactGetItems", `{"TransactItems":[{"Get":{"TableName":"mine"}},{"Get":{"TableName":"other"}}]}`, denied},
		{f, "TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"mine"}},{"Delete":null,"Update":{"TableName":"mine"}}]}`, ""},
		{f, "TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"mine"}},{"ConditionCheck":{"TableName":"other"}}]}`, denied},
		{f, "TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"mine"},"Delete":{"TableName":"other"}}]}`, denied},
		{f, "TransactWriteItems", `{"TransactItems":{"Put":{"TableName":"mine"}}}`, unreadable},
		{f, "DescribeTable", `{"TableName":"shared-1"}`, ""},
		{f, "ListTables", `{}`, denied},
		{everything, "ListTables", `{}`, ""},
		{f, "ExecuteStatement", `{"Statement":"SELECT * FROM \"mine\""}`, ""}, {f, "ExecuteStatement", `{"Statement":"SELECT * FROM \"other\""}`, denied},
		{f, "ExecuteStatement", `{"Statement":"DELETE FROM \"shared-1\" WHERE p='1'"}`, denied}, {f, "ExecuteStatement", `{"Statement":"SELECT * FROM \"shared-1\""}`, ""},
		{f, "ExecuteStatement", `{"Statement":"SELECT * FROM \"mine\", \"other\""}`, denied}, {f, "ExecuteStatement", `{}`, invalid},
		{f, "BatchExecuteStatement", `{"Statements":[{"Statement":"SELECT * FROM \"mine\" WHERE p=1"},{"Statement":"SELECT * FROM \"other\" WHERE p=1"}]}`, denied},
		{f, "ExecuteTransaction", `{"TransactStatements":[{"Statement":"UPDATE \"mine\" SET a=1 WHERE p=1"}]}`, ""},
		{everything, "ExecuteStatement", `{"Statement":"SELECT * FROM \"mine\""}`, ""},
		{f, "BatchExecuteStatement", `{}`, invalid}, {f, "ExecuteTransaction", `{}`, invalid},
		{f, "DescribeEndpoints", `{}`, ""}, {nothing, "DescribeEndpoints", `{}`, ""},
		{nothing, "GetItem", `{"TableName":"mine"}`, denied},
		{everything, "CreateTable", `{"TableName":"mine"}`, denied}, {everything, "DeleteTable", `{"TableName":"mine"}`, denied},
		{everything, "UpdateTable", `{"TableName":"mine"}`, denied}, {everything, "UpdateTimeToLive", `{"TableName":"mine"}`, denied},
		{everything, "TagResource", `{}`, denied}, {everything, "CreateBackup", `{}`, denied}, {everything, "NoSuch", `{}`, denied},
		{everything, "getitem", `{"TableName":"mine"}`, denied},
		{f, "ListTagsOfResource", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:1:table/other"}`, denied},
		{f, "Streams.DescribeStream", `{"StreamArn":"arn:aws:dynamodb:us-east-1:1:table/mine/stream/2026-01-01T00:00:00.000"}`, ""},
		{f, "Streams.DescribeStream", `{"StreamArn":"mine"}`, invalid},
		{f, "Streams.GetShardIterator", `{"StreamArn":"arn:aws:dynamodb:us-east-1:1:table/other/stream/2026-01-01T00:00:00.000"}`, denied},
		{f, "Streams.ListStreams", `{}`, invalid}, {f, "Streams.ListStreams", `{"TableName":"mine"}`, ""},
		{nothing, "Streams.GetRecords", `{"ShardIterator":"x"}`, denied}, {everything, "Streams.GetRecords", `{"ShardIterator":"x"}`, ""},
	} {
		target := "DynamoDB_20120810." + c.target
		if name, ok := strings.CutPrefix(c.target, "Streams."); ok {
			target = "DynamoDBStreams_20120810." + name
		}
		op, err := parse(http.Header{"X-Amz-Target": {target}})
		require.NoError(t, err)
		err = op.allowed(c.rights, "eu-central-1", []byte(c.body))
		if c.want == "" {
			require.NoError(t, err, "%s %s %s", c.rights.Name, c.target, c.body)
		} else {
			require.ErrorContains(t, err, c.want, "%s %s %s", c.rights.Name, c.target, c.body)
		}
	}
}

func TestParse_HeadersThatCouldMeanTwoThings_AreRefused(t *testing.T) {
	const get = "DynamoDB_20120810.GetItem"
	for _, header := range []http.Header{{}, {"X-Amz-Target": {get, get}}, {"X-Amz-Target": {get}, "Content-Encoding": {"gzip"}}} {
		_, err := parse(header)
		require.ErrorContains(t, err, "UnknownOperationException")
	}
}

// FuzzMembers holds the walk over JSON against the library's.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{`{"a":1,"b":[1,{"c":"\\\""}],"d" : null }`, `[{"a":"}"},[],{} , "x",-1e5,true]`, `{}`, `[]`, `"x"`, ` { "a" : { } } `} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			return
		}
		compact := func(b []byte) string {
			var out bytes.Buffer
			require.NoError(t, json.Compact(&out, b))
			return out.String()
		}
		var object map[string]json.RawMessage
		got := map[string]string{}
		err := members(data, func(name string, value []byte) error {
			got[name] = compact(value)
			return nil
		})
		if json.Unmarshal(data, &object) == nil && object != nil {
			require.NoError(t, err)
			require.Len(t, got, len(object))
			for name, value := range object {
				assert.Equal(t, compact(value), got[name])
			}
		} else {
			require.ErrorIs(t, err, errShape)
		}
		var list []json.RawMessage
		var items []string
		err = elements(data, func(value []byte) error {
			items = append(items, compact(value))
			return nil
		})
		if json.Unmarshal(data, &list) == nil && list != nil {
			require.NoError(t, err)
			require.Len(t, items, len(list))
			for i := range list {
				assert.Equal(t, compact(list[i]), items[i])
			}
		} else {
			require.ErrorIs(t, err, errShape)
		}
	})
}
