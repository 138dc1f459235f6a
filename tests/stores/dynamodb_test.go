package stores

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tableLimit is how long a table or index may take to be made.
const tableLimit = 2 * time.Minute

type (
	item = map[string]types.AttributeValue
	str  = types.AttributeValueMemberS
	num  = types.AttributeValueMemberN
)

// dynamo is the DynamoDB API under test.
type dynamo struct {
	*dynamodb.Client
	target target
	// owner makes tables and removes them, which functions may not.
	owner *dynamodb.Client
	// plain has a partition key "id"; sorted has "id" and a number "n", a local index on "standing" and a global one on
	// "colour" and "n". The checks share them and use keys of their own: making a table takes a cluster long.
	plain, sorted string
}

func newDynamoClient(at target) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		BaseEndpoint:     aws.String(at.endpoint),
		Region:           at.region,
		Credentials:      credentials.NewStaticCredentialsProvider(at.accessKey, at.secretKey, at.sessionToken),
		RetryMaxAttempts: 1,
	})
}

func TestDynamoDB(t *testing.T) {
	at, gaps := dynamoTarget(t)
	for _, caller := range at.callers() {
		t.Run(caller.who, func(t *testing.T) {
			db := &dynamo{Client: newDynamoClient(caller.target), owner: newDynamoClient(at), target: caller.target}
			db.plain = db.mustMakeTable(t, plainTable())
			db.sorted = db.mustMakeTable(t, sortedTable())
			perform(t, db, caller.gaps(gaps, notForFunctionsDynamoDB), dynamoChecks())
		})
	}
}

func plainTable() *dynamodb.CreateTableInput {
	return &dynamodb.CreateTableInput{
		BillingMode:          types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{attribute("id", types.ScalarAttributeTypeS)},
		KeySchema:            []types.KeySchemaElement{key("id", types.KeyTypeHash)},
	}
}

func sortedTable() *dynamodb.CreateTableInput {
	return &dynamodb.CreateTableInput{
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			attribute("id", types.ScalarAttributeTypeS), attribute("n", types.ScalarAttributeTypeN),
			attribute("standing", types.ScalarAttributeTypeS), attribute("colour", types.ScalarAttributeTypeS),
		},
		KeySchema: []types.KeySchemaElement{key("id", types.KeyTypeHash), key("n", types.KeyTypeRange)},
		LocalSecondaryIndexes: []types.LocalSecondaryIndex{{
			IndexName: aws.String("by-standing"), KeySchema: []types.KeySchemaElement{key("id", types.KeyTypeHash), key("standing", types.KeyTypeRange)},
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll},
		}},
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName: aws.String("by-colour"), KeySchema: []types.KeySchemaElement{key("colour", types.KeyTypeHash), key("n", types.KeyTypeRange)},
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll},
		}},
	}
}

func attribute(name string, kind types.ScalarAttributeType) types.AttributeDefinition {
	return types.AttributeDefinition{AttributeName: &name, AttributeType: kind}
}

func key(name string, kind types.KeyType) types.KeySchemaElement {
	return types.KeySchemaElement{AttributeName: &name, KeyType: kind}
}

func dynamoChecks() []check[*dynamo] {
	return []check[*dynamo]{
		// Tables.
		{"table that was made is described", func(t testing.TB, db *dynamo) {
			out, err := db.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &db.sorted})
			require.NoError(t, err)
			assert.Equal(t, types.TableStatusActive, out.Table.TableStatus)
			assert.Equal(t, sortedTable().KeySchema, out.Table.KeySchema)
			require.Len(t, out.Table.GlobalSecondaryIndexes, 1)
			assert.Equal(t, "by-colour", aws.ToString(out.Table.GlobalSecondaryIndexes[0].IndexName))
			require.Len(t, out.Table.LocalSecondaryIndexes, 1)
			assert.Equal(t, types.BillingModePayPerRequest, out.Table.BillingModeSummary.BillingMode)
		}},
		{"table made twice is refused", func(t testing.TB, db *dynamo) {
			in := plainTable()
			in.TableName = &db.plain
			_, err := db.CreateTable(t.Context(), in)
			requireCode(t, err, "ResourceInUseException")
		}},
		{"tables are listed", func(t testing.TB, db *dynamo) {
			var names []string
			pages := dynamodb.NewListTablesPaginator(db, &dynamodb.ListTablesInput{Limit: aws.Int32(1)})
			for pages.HasMorePages() {
				page, err := pages.NextPage(t.Context())
				require.NoError(t, err)
				names = append(names, page.TableNames...)
			}
			assert.Contains(t, names, db.plain)
			assert.Contains(t, names, db.sorted)
		}},
		{"missing table is not found", func(t testing.TB, db *dynamo) {
			_, err := db.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("no-such-table")})
			requireCode(t, err, "ResourceNotFoundException")
			_, err = db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("no-such-table"), Item: item{"id": &str{Value: "x"}}})
			requireCode(t, err, "ResourceNotFoundException")
		}},
		{"table with a key that is not defined is refused", func(t testing.TB, db *dynamo) {
			in := plainTable()
			in.TableName, in.KeySchema = aws.String("contract-bad-key"), []types.KeySchemaElement{key("other", types.KeyTypeHash)}
			_, err := db.CreateTable(t.Context(), in)
			requireCode(t, err, "ValidationException")
		}},
		{"deleted table is gone", func(t testing.TB, db *dynamo) {
			name := db.mustMakeTable(t, plainTable())
			_, err := db.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &name})
			require.NoError(t, err)
			require.NoError(t, dynamodb.NewTableNotExistsWaiter(db).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: &name}, tableLimit))
		}},
		{"table tags are kept", func(t testing.TB, db *dynamo) {
			out, err := db.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &db.plain})
			require.NoError(t, err)
			_, err = db.TagResource(t.Context(), &dynamodb.TagResourceInput{
				ResourceArn: out.Table.TableArn, Tags: []types.Tag{{Key: aws.String("stage"), Value: aws.String("test")}},
			})
			require.NoError(t, err)
			tags, err := db.ListTagsOfResource(t.Context(), &dynamodb.ListTagsOfResourceInput{ResourceArn: out.Table.TableArn})
			require.NoError(t, err)
			require.Len(t, tags.Tags, 1)
			assert.Equal(t, "stage", aws.ToString(tags.Tags[0].Key))
		}},
		{"index is added to a table that has items", func(t testing.TB, db *dynamo) {
			name := db.mustMakeTable(t, plainTable())
			db.mustPut(t, name, item{"id": &str{Value: "1"}, "shape": &str{Value: "round"}})
			_, err := db.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{
				TableName:            &name,
				AttributeDefinitions: []types.AttributeDefinition{attribute("id", types.ScalarAttributeTypeS), attribute("shape", types.ScalarAttributeTypeS)},
				GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: &types.CreateGlobalSecondaryIndexAction{
					IndexName: aws.String("by-shape"), KeySchema: []types.KeySchemaElement{key("shape", types.KeyTypeHash)},
					Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll},
				}}},
			})
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				out, err := db.Query(t.Context(), &dynamodb.QueryInput{
					TableName: &name, IndexName: aws.String("by-shape"), KeyConditionExpression: aws.String("shape = :s"),
					ExpressionAttributeValues: item{":s": &str{Value: "round"}},
				})
				return err == nil && out.Count == 1
			}, tableLimit, 100*time.Millisecond, "the index must be filled")
		}},
		{"stream is switched on", func(t testing.TB, db *dynamo) {
			in := plainTable()
			in.StreamSpecification = &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewAndOldImages}
			name := db.mustMakeTable(t, in)
			out, err := db.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name})
			require.NoError(t, err)
			assert.NotEmpty(t, aws.ToString(out.Table.LatestStreamArn))
			require.NotNil(t, out.Table.StreamSpecification)
			assert.Equal(t, types.StreamViewTypeNewAndOldImages, out.Table.StreamSpecification.StreamViewType)
		}},
		{"expired item goes and a fresh one stays", checkExpiry},

		// Putting and getting.
		{"every type is read back", func(t testing.TB, db *dynamo) {
			all := item{
				"id": &str{Value: "types"}, "text": &str{Value: "héllo 日本"}, "empty": &str{Value: ""}, "number": &num{Value: "-12.5"},
				"bytes": &types.AttributeValueMemberB{Value: []byte{0, 1, 255}}, "yes": &types.AttributeValueMemberBOOL{Value: true},
				"nothing": &types.AttributeValueMemberNULL{Value: true},
				"list":    &types.AttributeValueMemberL{Value: []types.AttributeValue{&str{Value: "a"}, &num{Value: "1"}}},
				"map":     &types.AttributeValueMemberM{Value: item{"deep": &types.AttributeValueMemberM{Value: item{"er": &num{Value: "3"}}}}},
			}
			db.mustPut(t, db.plain, all)
			assert.Equal(t, all, db.mustGet(t, "types"))
		}},
		{"sets are read back", func(t testing.TB, db *dynamo) {
			db.mustPut(t, db.plain, item{
				"id": &str{Value: "sets"}, "texts": &types.AttributeValueMemberSS{Value: []string{"b", "a"}},
				"numbers": &types.AttributeValueMemberNS{Value: []string{"2", "1"}}, "blobs": &types.AttributeValueMemberBS{Value: [][]byte{{1}, {2}}},
			})
			got := db.mustGet(t, "sets")
			assert.ElementsMatch(t, []string{"a", "b"}, got["texts"].(*types.AttributeValueMemberSS).Value)
			assert.ElementsMatch(t, []string{"1", "2"}, got["numbers"].(*types.AttributeValueMemberNS).Value)
			assert.ElementsMatch(t, [][]byte{{1}, {2}}, got["blobs"].(*types.AttributeValueMemberBS).Value)
		}},
		{"number keeps 38 digits", func(t testing.TB, db *dynamo) {
			const exact = "12345678901234567890123456789012345678"
			db.mustPut(t, db.plain, item{"id": &str{Value: "exact"}, "v": &num{Value: exact}})
			assert.Equal(t, exact, db.mustGet(t, "exact")["v"].(*num).Value)
		}},
		{"missing item is empty", func(t testing.TB, db *dynamo) {
			assert.Empty(t, db.mustGet(t, "never put"))
		}},
		{"put replaces the whole item", func(t testing.TB, db *dynamo) {
			db.mustPut(t, db.plain, item{"id": &str{Value: "replaced"}, "old": &str{Value: "x"}})
			out, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{
				TableName: &db.plain, Item: item{"id": &str{Value: "replaced"}, "new": &str{Value: "y"}}, ReturnValues: types.ReturnValueAllOld,
			})
			require.NoError(t, err)
			assert.Equal(t, item{"id": &str{Value: "replaced"}, "old": &str{Value: "x"}}, out.Attributes)
			assert.Equal(t, item{"id": &str{Value: "replaced"}, "new": &str{Value: "y"}}, db.mustGet(t, "replaced"))
		}},
		{"get of some attributes", func(t testing.TB, db *dynamo) {
			db.mustPut(t, db.plain, item{
				"id": &str{Value: "part"}, "a": &str{Value: "1"}, "b": &str{Value: "2"},
				"m": &types.AttributeValueMemberM{Value: item{"x": &num{Value: "1"}, "y": &num{Value: "2"}}},
			})
			out, err := db.GetItem(t.Context(), &dynamodb.GetItemInput{
				TableName: &db.plain, Key: item{"id": &str{Value: "part"}}, ProjectionExpression: aws.String("#a, m.y"),
				ExpressionAttributeNames: map[string]string{"#a": "a"}, ConsistentRead: aws.Bool(true),
			})
			require.NoError(t, err)
			assert.Equal(t, item{"a": &str{Value: "1"}, "m": &types.AttributeValueMemberM{Value: item{"y": &num{Value: "2"}}}}, out.Item)
		}},
		{"put only if absent", func(t testing.TB, db *dynamo) {
			put := func() error {
				_, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{
					TableName: &db.plain, Item: item{"id": &str{Value: "once"}}, ConditionExpression: aws.String("attribute_not_exists(id)"),
				})
				return err
			}
			require.NoError(t, put())
			requireCode(t, put(), "ConditionalCheckFailedException")
		}},
		{"item without its key is refused", func(t testing.TB, db *dynamo) {
			_, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &db.plain, Item: item{"other": &str{Value: "x"}}})
			requireCode(t, err, "ValidationException")
		}},
		{"key of another type is refused", func(t testing.TB, db *dynamo) {
			_, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &db.plain, Item: item{"id": &num{Value: "1"}}})
			requireCode(t, err, "ValidationException")
		}},
		{"empty key is refused", func(t testing.TB, db *dynamo) {
			_, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &db.plain, Item: item{"id": &str{Value: ""}}})
			requireCode(t, err, "ValidationException")
		}},

		// Updating.
		{"update sets and removes", func(t testing.TB, db *dynamo) {
			db.mustPut(t, db.plain, item{"id": &str{Value: "update"}, "a": &str{Value: "1"}, "b": &str{Value: "2"}})
			out := db.mustUpdate(t, "update", "SET a = :a, c = :c REMOVE b", item{":a": &str{Value: "new"}, ":c": &num{Value: "3"}})
			assert.Equal(t, item{"id": &str{Value: "update"}, "a": &str{Value: "new"}, "c": &num{Value: "3"}}, out)
		}},
		{"update makes what is not there", func(t testing.TB, db *dynamo) {
			out := db.mustUpdate(t, "made by update", "SET a = :a", item{":a": &str{Value: "x"}})
			assert.Equal(t, item{"id": &str{Value: "made by update"}, "a": &str{Value: "x"}}, out)
		}},
		{"update adds to numbers and sets", func(t testing.TB, db *dynamo) {
			for range 2 {
				db.mustUpdate(t, "adds", "ADD n :one, tags :tag", item{":one": &num{Value: "1"}, ":tag": &types.AttributeValueMemberSS{Value: []string{"x"}}})
			}
			out := db.mustUpdate(t, "adds", "ADD tags :tag", item{":tag": &types.AttributeValueMemberSS{Value: []string{"y"}}})
			assert.Equal(t, &num{Value: "2"}, out["n"])
			assert.ElementsMatch(t, []string{"x", "y"}, out["tags"].(*types.AttributeValueMemberSS).Value)
			out = db.mustUpdate(t, "adds", "DELETE tags :tag", item{":tag": &types.AttributeValueMemberSS{Value: []string{"x"}}})
			assert.Equal(t, &types.AttributeValueMemberSS{Value: []string{"y"}}, out["tags"])
		}},
		{"update calculates", func(t testing.TB, db *dynamo) {
			values := item{":zero": &num{Value: "0"}, ":step": &num{Value: "1.5"}, ":more": &types.AttributeValueMemberL{Value: []types.AttributeValue{&str{Value: "x"}}}, ":none": &types.AttributeValueMemberL{}}
			var out item
			for range 2 {
				out = db.mustUpdate(t, "sums", "SET n = if_not_exists(n, :zero) + :step, l = list_append(if_not_exists(l, :none), :more)", values)
			}
			assert.Equal(t, &num{Value: "3"}, out["n"])
			assert.Len(t, out["l"].(*types.AttributeValueMemberL).Value, 2)
		}},
		{"update inside a map and a list", func(t testing.TB, db *dynamo) {
			db.mustPut(t, db.plain, item{
				"id": &str{Value: "nested"}, "m": &types.AttributeValueMemberM{Value: item{"x": &num{Value: "1"}}},
				"l": &types.AttributeValueMemberL{Value: []types.AttributeValue{&str{Value: "a"}, &str{Value: "b"}}},
			})
			out := db.mustUpdate(t, "nested", "SET m.y = :v REMOVE l[0]", item{":v": &num{Value: "2"}})
			assert.Equal(t, item{"x": &num{Value: "1"}, "y": &num{Value: "2"}}, out["m"].(*types.AttributeValueMemberM).Value)
			assert.Equal(t, []types.AttributeValue{&str{Value: "b"}}, out["l"].(*types.AttributeValueMemberL).Value)
		}},
		{"update answers only what it changed", func(t testing.TB, db *dynamo) {
			db.mustPut(t, db.plain, item{"id": &str{Value: "changed"}, "a": &str{Value: "1"}, "b": &str{Value: "2"}})
			out, err := db.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
				TableName: &db.plain, Key: item{"id": &str{Value: "changed"}}, UpdateExpression: aws.String("SET a = :a"),
				ExpressionAttributeValues: item{":a": &str{Value: "new"}}, ReturnValues: types.ReturnValueUpdatedNew,
			})
			require.NoError(t, err)
			assert.Equal(t, item{"a": &str{Value: "new"}}, out.Attributes)
		}},
		{"update whose condition fails changes nothing", func(t testing.TB, db *dynamo) {
			db.mustPut(t, db.plain, item{"id": &str{Value: "guarded"}, "version": &num{Value: "3"}})
			_, err := db.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
				TableName: &db.plain, Key: item{"id": &str{Value: "guarded"}}, UpdateExpression: aws.String("SET version = :new"),
				ConditionExpression: aws.String("version = :old AND version < :new"), ExpressionAttributeValues: item{":old": &num{Value: "2"}, ":new": &num{Value: "9"}},
			})
			requireCode(t, err, "ConditionalCheckFailedException")
			assert.Equal(t, &num{Value: "3"}, db.mustGet(t, "guarded")["version"])
		}},
		{"counter loses no update", func(t testing.TB, db *dynamo) {
			var wg sync.WaitGroup
			errs := make([]error, 30)
			for i := range errs {
				wg.Go(func() {
					_, errs[i] = db.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
						TableName: &db.plain, Key: item{"id": &str{Value: "counter"}}, UpdateExpression: aws.String("ADD n :one"),
						ExpressionAttributeValues: item{":one": &num{Value: "1"}},
					})
				})
			}
			wg.Wait()
			require.NoError(t, errors.Join(errs...))
			assert.Equal(t, &num{Value: strconv.Itoa(len(errs))}, db.mustGet(t, "counter")["n"])
		}},
		{"update of a key is refused", func(t testing.TB, db *dynamo) {
			_, err := db.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
				TableName: &db.plain, Key: item{"id": &str{Value: "k"}}, UpdateExpression: aws.String("SET id = :v"),
				ExpressionAttributeValues: item{":v": &str{Value: "other"}},
			})
			requireCode(t, err, "ValidationException")
		}},

		// Deleting.
		{"deleted item is gone and was answered", func(t testing.TB, db *dynamo) {
			db.mustPut(t, db.plain, item{"id": &str{Value: "gone"}, "a": &str{Value: "1"}})
			out, err := db.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{
				TableName: &db.plain, Key: item{"id": &str{Value: "gone"}}, ReturnValues: types.ReturnValueAllOld,
			})
			require.NoError(t, err)
			assert.Equal(t, &str{Value: "1"}, out.Attributes["a"])
			assert.Empty(t, db.mustGet(t, "gone"))
		}},
		{"deleting what is not there is no error", func(t testing.TB, db *dynamo) {
			_, err := db.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &db.plain, Key: item{"id": &str{Value: "never was"}}})
			require.NoError(t, err)
		}},
		{"delete whose condition fails changes nothing", func(t testing.TB, db *dynamo) {
			db.mustPut(t, db.plain, item{"id": &str{Value: "kept"}, "locked": &types.AttributeValueMemberBOOL{Value: true}})
			_, err := db.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{
				TableName: &db.plain, Key: item{"id": &str{Value: "kept"}}, ConditionExpression: aws.String("locked = :no"),
				ExpressionAttributeValues: item{":no": &types.AttributeValueMemberBOOL{Value: false}},
			})
			requireCode(t, err, "ConditionalCheckFailedException")
			assert.NotEmpty(t, db.mustGet(t, "kept"))
		}},

		// Queries.
		{"query is sorted by number", func(t testing.TB, db *dynamo) {
			db.mustFill(t, "sorted", 12)
			assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, db.mustQuery(t, "sorted", func(*dynamodb.QueryInput) {}))
		}},
		{"query backwards with a limit", func(t testing.TB, db *dynamo) {
			db.mustFill(t, "backwards", 12)
			assert.Equal(t, []int{11, 10, 9}, db.mustQuery(t, "backwards", func(in *dynamodb.QueryInput) {
				in.ScanIndexForward, in.Limit = aws.Bool(false), aws.Int32(3)
			}))
		}},
		{"query of a range", func(t testing.TB, db *dynamo) {
			db.mustFill(t, "between", 12)
			assert.Equal(t, []int{3, 4, 5}, db.mustQuery(t, "between", func(in *dynamodb.QueryInput) {
				in.KeyConditionExpression = aws.String("id = :id AND n BETWEEN :low AND :high")
				in.ExpressionAttributeValues[":low"], in.ExpressionAttributeValues[":high"] = &num{Value: "3"}, &num{Value: "5"}
			}))
		}},
		{"query with a filter counts what it looked at", func(t testing.TB, db *dynamo) {
			db.mustFill(t, "filtered", 6)
			out, err := db.Query(t.Context(), &dynamodb.QueryInput{
				TableName: &db.sorted, KeyConditionExpression: aws.String("id = :id"), FilterExpression: aws.String("colour = :c AND contains(standing, :r)"),
				ExpressionAttributeValues: item{":id": &str{Value: "filtered"}, ":c": &str{Value: "filtered-even"}, ":r": &str{Value: "lace"}},
			})
			require.NoError(t, err)
			assert.EqualValues(t, 3, out.Count)
			assert.EqualValues(t, 6, out.ScannedCount)
		}},
		{"query in pages is complete", func(t testing.TB, db *dynamo) {
			db.mustFill(t, "pages", 7)
			var got []int
			pages := dynamodb.NewQueryPaginator(db, &dynamodb.QueryInput{
				TableName: &db.sorted, KeyConditionExpression: aws.String("id = :id"), Limit: aws.Int32(3),
				ExpressionAttributeValues: item{":id": &str{Value: "pages"}},
			})
			for pages.HasMorePages() {
				page, err := pages.NextPage(t.Context())
				require.NoError(t, err)
				got = append(got, numbers(t, page.Items)...)
			}
			assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6}, got)
		}},
		{"query counts only", func(t testing.TB, db *dynamo) {
			db.mustFill(t, "counted", 5)
			out, err := db.Query(t.Context(), &dynamodb.QueryInput{
				TableName: &db.sorted, KeyConditionExpression: aws.String("id = :id"), Select: types.SelectCount,
				ExpressionAttributeValues: item{":id": &str{Value: "counted"}},
			})
			require.NoError(t, err)
			assert.EqualValues(t, 5, out.Count)
			assert.Empty(t, out.Items)
		}},
		{"query of a global index", func(t testing.TB, db *dynamo) {
			db.mustFill(t, "global", 6)
			// A global index may lag behind its table.
			require.Eventually(t, func() bool {
				out, err := db.Query(t.Context(), &dynamodb.QueryInput{
					TableName: &db.sorted, IndexName: aws.String("by-colour"), KeyConditionExpression: aws.String("colour = :c AND n > :n"),
					ExpressionAttributeValues: item{":c": &str{Value: "global-odd"}, ":n": &num{Value: "1"}},
				})
				return err == nil && assert.ObjectsAreEqual([]int{3, 5}, numbers(t, out.Items))
			}, tableLimit, 100*time.Millisecond)
		}},
		{"query of a local index by prefix", func(t testing.TB, db *dynamo) {
			db.mustFill(t, "local", 12)
			assert.Equal(t, []int{10, 1, 0}, db.mustQuery(t, "local", func(in *dynamodb.QueryInput) {
				in.IndexName, in.KeyConditionExpression = aws.String("by-standing"), aws.String("id = :id AND begins_with(standing, :r)")
				in.ExpressionAttributeValues[":r"] = &str{Value: "place-1"} // 1, 10 and 11, in the order of texts
			}))
		}},
		{"query without the partition key is refused", func(t testing.TB, db *dynamo) {
			_, err := db.Query(t.Context(), &dynamodb.QueryInput{
				TableName: &db.sorted, KeyConditionExpression: aws.String("n = :n"), ExpressionAttributeValues: item{":n": &num{Value: "1"}},
			})
			requireCode(t, err, "ValidationException")
		}},

		// Scans and batches.
		{"scan in pages is complete", func(t testing.TB, db *dynamo) {
			name := db.mustMakeTable(t, plainTable())
			for i := range 11 {
				db.mustPut(t, name, item{"id": &str{Value: strconv.Itoa(i)}})
			}
			seen := map[string]bool{}
			pages := dynamodb.NewScanPaginator(db, &dynamodb.ScanInput{TableName: &name, Limit: aws.Int32(4)})
			for pages.HasMorePages() {
				page, err := pages.NextPage(t.Context())
				require.NoError(t, err)
				for _, i := range page.Items {
					seen[i["id"].(*str).Value] = true
				}
			}
			assert.Len(t, seen, 11)
		}},
		{"scan in segments is complete, with a filter", func(t testing.TB, db *dynamo) {
			db.mustFill(t, "segments", 10)
			total := 0
			for segment := range int32(3) {
				pages := dynamodb.NewScanPaginator(db, &dynamodb.ScanInput{
					TableName: &db.sorted, Segment: aws.Int32(segment), TotalSegments: aws.Int32(3), FilterExpression: aws.String("id = :id"),
					ExpressionAttributeValues: item{":id": &str{Value: "segments"}},
				})
				for pages.HasMorePages() {
					page, err := pages.NextPage(t.Context())
					require.NoError(t, err)
					total += len(page.Items)
				}
			}
			assert.Equal(t, 10, total)
		}},
		{"batch writes and reads", func(t testing.TB, db *dynamo) {
			var writes []types.WriteRequest
			var ids []item
			for i := range 25 {
				id := item{"id": &str{Value: fmt.Sprintf("batch-%d", i)}}
				ids = append(ids, id)
				writes = append(writes, types.WriteRequest{PutRequest: &types.PutRequest{Item: id}})
			}
			_, err := db.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{db.plain: writes}})
			require.NoError(t, err)
			deletes := []types.WriteRequest{{DeleteRequest: &types.DeleteRequest{Key: ids[0]}}}
			_, err = db.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{db.plain: deletes}})
			require.NoError(t, err)
			out, err := db.BatchGetItem(t.Context(), &dynamodb.BatchGetItemInput{
				RequestItems: map[string]types.KeysAndAttributes{db.plain: {Keys: ids, ConsistentRead: aws.Bool(true)}},
			})
			require.NoError(t, err)
			assert.Len(t, out.Responses[db.plain], 24)
		}},
		{"batch with one key twice is refused", func(t testing.TB, db *dynamo) {
			put := types.WriteRequest{PutRequest: &types.PutRequest{Item: item{"id": &str{Value: "double"}}}}
			_, err := db.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{
				RequestItems: map[string][]types.WriteRequest{db.plain: {put, put}},
			})
			requireCode(t, err, "ValidationException")
		}},

		// Mistakes and strangers.
		{"wrong expression is refused", func(t testing.TB, db *dynamo) {
			for _, expression := range []string{"SET", "SET a = :undefined", "FROB a"} {
				_, err := db.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
					TableName: &db.plain, Key: item{"id": &str{Value: "x"}}, UpdateExpression: &expression,
				})
				requireCode(t, err, "ValidationException")
			}
		}},
		{"wrong secret is refused", func(t testing.TB, db *dynamo) {
			wrong := db.target
			wrong.secretKey += "x"
			_, err := newDynamoClient(wrong).ListTables(t.Context(), &dynamodb.ListTablesInput{})
			requireCode(t, err, "UnrecognizedClientException", "InvalidSignatureException")
		}},
		{"unknown key is refused", func(t testing.TB, db *dynamo) {
			wrong := db.target
			wrong.accessKey = "nobody-has-this"
			_, err := newDynamoClient(wrong).ListTables(t.Context(), &dynamodb.ListTablesInput{})
			requireCode(t, err, "UnrecognizedClientException")
		}},
	}
}

// checkExpiry waits for what DynamoDB promises "within a few days" and a box does in a minute or so.
func checkExpiry(t testing.TB, db *dynamo) {
	name := db.mustMakeTable(t, plainTable())
	_, err := db.UpdateTimeToLive(t.Context(), &dynamodb.UpdateTimeToLiveInput{
		TableName: &name, TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String("until"), Enabled: aws.Bool(true)},
	})
	require.NoError(t, err)
	out, err := db.DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &name})
	require.NoError(t, err)
	assert.Equal(t, "until", aws.ToString(out.TimeToLiveDescription.AttributeName))
	put := func(id string, until time.Time) {
		db.mustPut(t, name, item{"id": &str{Value: id}, "until": &num{Value: strconv.FormatInt(until.Unix(), 10)}})
	}
	put("old", time.Now().Add(-time.Minute))
	put("fresh", time.Now().Add(time.Hour))
	wait, err := strconv.Atoi(setting("DYNAMODB_TTL_WAIT_SECONDS", "120"))
	require.NoError(t, err, "DYNAMODB_TTL_WAIT_SECONDS: must be whole seconds")
	require.Eventually(t, func() bool {
		got, err := db.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &name, Key: item{"id": &str{Value: "old"}}})
		return err == nil && len(got.Item) == 0
	}, time.Duration(wait)*time.Second, 200*time.Millisecond, "the expired item must go")
	got, err := db.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &name, Key: item{"id": &str{Value: "fresh"}}})
	require.NoError(t, err)
	assert.NotEmpty(t, got.Item, "what has not expired must stay")
}

// mustMakeTable makes a table under a name of its own, waits until it is there, and removes it when the checks end.
func (db *dynamo) mustMakeTable(t testing.TB, in *dynamodb.CreateTableInput) string {
	t.Helper()
	name := "esb-contract-" + hex.EncodeToString(mustRandom(t, 6))
	in.TableName = &name
	_, err := db.owner.CreateTable(t.Context(), in)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, _ = db.owner.DeleteTable(context.WithoutCancel(t.Context()), &dynamodb.DeleteTableInput{TableName: &name}) // a check may have done so
	})
	require.NoError(t, dynamodb.NewTableExistsWaiter(db, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 100*time.Millisecond, time.Second
	}).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: &name}, tableLimit))
	return name
}

func (db *dynamo) mustPut(t testing.TB, table string, i item) {
	t.Helper()
	_, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: i})
	require.NoError(t, err)
}

// mustGet reads an item of the plain table.
func (db *dynamo) mustGet(t testing.TB, id string) item {
	t.Helper()
	out, err := db.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &db.plain, Key: item{"id": &str{Value: id}}, ConsistentRead: aws.Bool(true)})
	require.NoError(t, err)
	return out.Item
}

// mustUpdate updates an item of the plain table and returns it whole.
func (db *dynamo) mustUpdate(t testing.TB, id, expression string, values item) item {
	t.Helper()
	out, err := db.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: &db.plain, Key: item{"id": &str{Value: id}}, UpdateExpression: &expression, ExpressionAttributeValues: values,
		ReturnValues: types.ReturnValueAllNew,
	})
	require.NoError(t, err)
	return out.Attributes
}

// mustFill puts items 0 to count-1 of one partition into the sorted table, last first. Their standing counts down, their
// colour is "<id>-even" or "<id>-odd".
func (db *dynamo) mustFill(t testing.TB, id string, count int) {
	t.Helper()
	for n := count - 1; n >= 0; n-- {
		colour := id + "-even"
		if n%2 == 1 {
			colour = id + "-odd"
		}
		db.mustPut(t, db.sorted, item{
			"id": &str{Value: id}, "n": &num{Value: strconv.Itoa(n)}, "standing": &str{Value: fmt.Sprintf("place-%d", count-1-n)}, "colour": &str{Value: colour},
		})
	}
}

// mustQuery queries a partition of the sorted table and returns the numbers of the items in order.
func (db *dynamo) mustQuery(t testing.TB, id string, change func(*dynamodb.QueryInput)) []int {
	t.Helper()
	in := &dynamodb.QueryInput{
		TableName: &db.sorted, KeyConditionExpression: aws.String("id = :id"), ConsistentRead: aws.Bool(true),
		ExpressionAttributeValues: item{":id": &str{Value: id}},
	}
	change(in)
	out, err := db.Query(t.Context(), in)
	require.NoError(t, err)
	return numbers(t, out.Items)
}

func numbers(t testing.TB, items []item) []int {
	t.Helper()
	var all []int
	for _, i := range items {
		n, err := strconv.Atoi(i["n"].(*num).Value)
		require.NoError(t, err)
		all = append(all, n)
	}
	return all
}
