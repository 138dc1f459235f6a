package dynamofront

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

var names = Names{Region: "eu-west-1", Account: "111122223333", StoreRegion: "dynoxide", StoreAccount: "000000000000"}

func operationOf(t *testing.T, target string) operation {
	t.Helper()
	op, err := parse(http.Header{"X-Amz-Target": {target}})
	require.NoError(t, err)
	return op
}

func TestNames_TablesByTheirARNs(t *testing.T) {
	const arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/tab"
	for _, c := range []struct{ target, body, want string }{
		{"DynamoDB_20120810.GetItem", `{"TableName":"` + arn + `","Key":{"p":{"S":"` + arn + `"}}}`, `{"TableName":"tab","Key":{"p":{"S":"` + arn + `"}}}`},
		{"DynamoDB_20120810.GetItem", ` { "Key" : {} , "TableName" : "tab" } `, ` { "Key" : {} , "TableName" : "tab" } `},
		{"DynamoDB_20120810.BatchGetItem", `{"RequestItems":{"` + arn + `":{"Keys":[]},"b":{}}}`, `{"RequestItems":{"tab":{"Keys":[]},"b":{}}}`},
		{"DynamoDB_20120810.TransactWriteItems", `{"TransactItems":[{"Put":{"Item":{"TableName":{"S":"` + arn + `"}},"TableName":"` + arn + `"}},{"Delete":{"TableName":"x"}}]}`,
			`{"TransactItems":[{"Put":{"Item":{"TableName":{"S":"` + arn + `"}},"TableName":"tab"}},{"Delete":{"TableName":"x"}}]}`},
		{"DynamoDB_20120810.ListTagsOfResource", `{"ResourceArn":"` + arn + `"}`, `{"ResourceArn":"arn:aws:dynamodb:dynoxide:000000000000:table/tab"}`},
		{"DynamoDBStreams_20120810.GetShardIterator", `{"StreamArn":"` + arn + `/stream/1.5","ShardId":"shardId-00000000000000000012-00000000"}`,
			`{"StreamArn":"arn:aws:dynamodb:dynoxide:000000000000:table/tab/stream/1.5","ShardId":"shardId-00000012-tab"}`},
		{"DynamoDB_20120810.GetItem", `[1]`, `[1]`}, {"DynamoDB_20120810.GetItem", `{"TableName":5}`, `{"TableName":5}`},
	} {
		got, _, err := names.toStore(operationOf(t, c.target), []byte(c.body))
		require.NoError(t, err, c.body)
		assert.Equal(t, c.want, string(got))
	}
	for _, foreign := range []string{"arn:aws:dynamodb:eu-west-1:444455556666:table/tab", "arn:aws:dynamodb:us-east-1:111122223333:table/tab"} {
		_, _, err := names.toStore(operationOf(t, "DynamoDB_20120810.GetItem"), []byte(`{"TableName":"`+foreign+`"}`))
		require.ErrorContains(t, err, "no resource-based policy")
	}
}

func TestNames_AnswersHaveTheBoxesRegionAndAccount_AndItemsStayAsTheyAre(t *testing.T) {
	from := func(target, body string, names2 renamed) string {
		return string(names.fromStore(operationOf(t, target), []byte(body), names2))
	}
	assert.Equal(t, `{"Table":{"TableArn":"arn:aws:dynamodb:eu-west-1:111122223333:table/tab"}}`,
		from("DynamoDB_20120810.DescribeTable", `{"Table":{"TableArn":"arn:aws:dynamodb:dynoxide:000000000000:table/tab"}}`, nil))
	const item = `{"Item":{"a":{"S":"arn:aws:dynamodb:dynoxide:000000000000:table/tab"}}}`
	assert.Equal(t, item, from("DynamoDB_20120810.GetItem", item, nil))
	assert.Equal(t, `{"Records":[{"awsRegion":"eu-west-1","dynamodb":{"NewImage":{"awsRegion":{"S":"dynoxide"},"a":{"S":"\"awsRegion\":\"dynoxide\""}}}}]}`,
		from("DynamoDBStreams_20120810.GetRecords", `{"Records":[{"awsRegion":"dynoxide","dynamodb":{"NewImage":{"awsRegion":{"S":"dynoxide"},"a":{"S":"\"awsRegion\":\"dynoxide\""}}}}]}`, nil))
	// boto3 wants ids of 28 characters and more.
	assert.Equal(t, `{"StreamDescription":{"StreamArn":"x","Shards":[{"ShardId":"shardId-00000000000000000001-00000000"}]}}`,
		from("DynamoDBStreams_20120810.DescribeStream", `{"StreamDescription":{"StreamArn":"x","Shards":[{"ShardId":"shardId-00000001-tab"}]}}`, nil))
	const arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/tab"
	assert.Equal(t, `{"Responses":{"`+arn+`":[{"tab":{"S":"tab"}}],"b":[]},"UnprocessedKeys":{"`+arn+`":{}}}`,
		from("DynamoDB_20120810.BatchGetItem", `{"Responses":{"tab":[{"tab":{"S":"tab"}}],"b":[]},"UnprocessedKeys":{"tab":{}}}`, renamed{"tab": arn}))
}

func TestIterators_AreOfOneTable(t *testing.T) {
	i := iterators{"secret"}
	wrapped := string(i.wrapAnswer([]byte(`{"Records":[{"a":"b"}],"NextShardIterator":"inner|x"}`), "mine"))
	var out struct{ NextShardIterator string }
	require.NoError(t, json.Unmarshal([]byte(wrapped), &out))
	table, inner, ok := i.unwrap(out.NextShardIterator)
	require.True(t, ok)
	assert.Equal(t, "mine", table)
	assert.Equal(t, "inner|x", inner)
	for _, wrong := range []string{"", "inner", "mine|x", "mine||inner|x", "other" + out.NextShardIterator[4:], out.NextShardIterator + "y", iterators{"other"}.wrap("mine", "inner|x")} {
		_, _, ok := i.unwrap(wrong)
		assert.False(t, ok, wrong)
	}
	assert.JSONEq(t, `{"Records":[]}`, string(i.wrapAnswer([]byte(`{"Records":[]}`), "mine")))
}

func TestStatementTable(t *testing.T) {
	for statement, want := range map[string]struct {
		table  string
		access functionaccess.Access
	}{
		`SELECT * FROM "tab"`:                                   {"tab", read},
		"select a, b from tab where p = 'FROM \"x\"'":           {"tab", read},
		`SELECT * FROM "tab"."index" WHERE p = ?`:               {"tab", read},
		`SELECT * FROM "my.tab-1" WHERE p = 'it''s'`:            {"my.tab-1", read},
		`INSERT INTO "tab" VALUE {'p': ?, 'from': 'x'}`:         {"tab", write},
		`UPDATE "tab" SET a = 1 SET b = 2 WHERE p = 'x'`:        {"tab", write},
		"DELETE\n FROM tab\n WHERE p = 'x' RETURNING ALL OLD *": {"tab", write},
		`SELECT * FROM "tab" ORDER BY a`:                        {"tab", read},
		"":                                                      {}, "SELECT": {}, "SELECT * FROM": {}, "FROM tab": {}, `"SELECT" * FROM tab`: {},
		`SELECT * FROM 'tab'`: {}, `SELECT * FROM "tab", "other"`: {}, `SELECT * FROM "tab" "other"`: {}, `SELECT * FROM tab.other`: {},
		`SELECT * FROM "tab" JOIN "other"`: {}, `SELECT * FROM "tab" WHERE EXISTS(SELECT * FROM "other")`: {},
		`SELECT * FROM "tab" -- "`: {}, `SELECT * /* " */ FROM "tab"`: {}, `SELECT * FROM "tab"; DELETE FROM "other"`: {},
		`SELECT * FROM "ta""b"`: {}, `SELECT * FROM "tab`: {}, `SELECT * FROM "tab" WHERE a = '\' OR b`: {}, "SELECT * FROM `tab`": {},
		`SELECT * FROM "a/b"`: {}, `SELECT * FROM [tab]`: {"", ""}, `EXISTS(SELECT * FROM "tab" WHERE p=1)`: {}, "DROP TABLE tab": {}, `UPDATE "tab"."index" SET a=1`: {},
		`SELECT "FROM" FROM "tab" WHERE from = 1`: {}, `SELECT * FROM "täb"`: {}, `SELECT * FROM tab-other WHERE a=1`: {"tab-other", read},
	} {
		table, access, ok := statementTable(statement)
		assert.Equal(t, want.table != "", ok, statement)
		if ok {
			assert.Equal(t, want.table, table, statement)
			assert.Equal(t, want.access, access, statement)
		}
	}
}

func FuzzStatementTable(f *testing.F) {
	f.Add(`SELECT * FROM "tab" WHERE p = 'x'`)
	f.Add(`INSERT INTO tab VALUE {'a':1}`)
	f.Fuzz(func(t *testing.T, statement string) {
		table, _, ok := statementTable(statement)
		if ok && !tableName.MatchString(table) {
			t.Fatalf("%q is a table of %q", table, statement)
		}
	})
}
