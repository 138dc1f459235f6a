package stores

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streamtypes "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDynamoDBStandIn checks what the front adds to the stand-in, as the operator and as a function.
func TestDynamoDBStandIn(t *testing.T) {
	if setting("DYNAMODB_ENDPOINT", "") != "" {
		t.Skip("the store is set, and not the stand-in")
	}
	at, _ := dynamoTarget(t)
	for _, caller := range at.callers() {
		t.Run(caller.who, func(t *testing.T) {
			owner, client := newDynamoClient(at), newDynamoClient(caller.target)
			table := "esb-standin-" + strings.ReplaceAll(strings.ReplaceAll(caller.who, " ", "-"), "'", "")
			made, err := owner.CreateTable(t.Context(), &dynamodb.CreateTableInput{
				TableName: &table, BillingMode: types.BillingModePayPerRequest,
				KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("p"), KeyType: types.KeyTypeHash}},
				AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("p"), AttributeType: types.ScalarAttributeTypeS}, {AttributeName: aws.String("g"), AttributeType: types.ScalarAttributeTypeS}},
				StreamSpecification:  &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewImage},
				GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
					IndexName: aws.String("by-g"), KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("g"), KeyType: types.KeyTypeHash}},
					Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll},
				}},
			})
			require.NoError(t, err)
			arn := "arn:aws:dynamodb:us-east-1:123456789012:table/" + table
			assert.Equal(t, arn, aws.ToString(made.TableDescription.TableArn))
			out, err := client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &arn})
			require.NoError(t, err)
			assert.Equal(t, arn, aws.ToString(out.Table.TableArn))
			assert.Equal(t, arn+"/index/by-g", aws.ToString(out.Table.GlobalSecondaryIndexes[0].IndexArn))
			stream := aws.ToString(out.Table.LatestStreamArn)
			assert.True(t, strings.HasPrefix(stream, arn+"/stream/"), stream)
			_, err = client.ListTagsOfResource(t.Context(), &dynamodb.ListTagsOfResourceInput{ResourceArn: &arn})
			require.NoError(t, err)
			byARN(t, client, table, arn)
			readsStream(t, caller, stream, table)
			limits, err := client.DescribeLimits(t.Context(), &dynamodb.DescribeLimitsInput{})
			require.NoError(t, err)
			assert.EqualValues(t, 40000, aws.ToInt64(limits.TableMaxReadCapacityUnits))
			backups, err := client.DescribeContinuousBackups(t.Context(), &dynamodb.DescribeContinuousBackupsInput{TableName: &table})
			require.NoError(t, err)
			assert.Equal(t, types.PointInTimeRecoveryStatusDisabled, backups.ContinuousBackupsDescription.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus)
			_, err = client.DescribeContinuousBackups(t.Context(), &dynamodb.DescribeContinuousBackupsInput{TableName: aws.String("no-such-table")})
			requireCode(t, err, "ResourceNotFoundException")
			foreign := strings.Replace(arn, "123456789012", "444455556666", 1)
			_, err = client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &foreign, Key: keyOf("1")})
			requireCode(t, err, "AccessDeniedException")
		})
	}
}

func keyOf(p string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"p": &types.AttributeValueMemberS{Value: p}}
}

// byARN uses a table by its ARN in every kind of request (DynamoDB developer guide, "Cross-account access": a table's name is its
// name or its ARN).
func byARN(t *testing.T, client *dynamodb.Client, table, arn string) {
	t.Helper()
	// A text that looks like what the front replaces stays as it is.
	item := map[string]types.AttributeValue{"p": &types.AttributeValueMemberS{Value: "1"}, "a": &types.AttributeValueMemberS{Value: "arn:aws:dynamodb:dynoxide:000000000000:table/x"}}
	_, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &arn, Item: item})
	require.NoError(t, err)
	_, err = client.TransactWriteItems(t.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{{Put: &types.Put{TableName: &arn, Item: keyOf("2")}}}})
	require.NoError(t, err)
	_, err = client.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{arn: {{PutRequest: &types.PutRequest{Item: keyOf("3")}}}}})
	require.NoError(t, err)
	batch, err := client.BatchGetItem(t.Context(), &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{arn: {Keys: []map[string]types.AttributeValue{keyOf("1"), keyOf("2"), keyOf("3")}}}})
	require.NoError(t, err)
	assert.Len(t, batch.Responses[arn], 3, "%v", batch.Responses)
	got, err := client.TransactGetItems(t.Context(), &dynamodb.TransactGetItemsInput{TransactItems: []types.TransactGetItem{{Get: &types.Get{TableName: &arn, Key: keyOf("1")}}}})
	require.NoError(t, err)
	assert.Equal(t, item, got.Responses[0].Item)
	statement, err := client.ExecuteStatement(t.Context(), &dynamodb.ExecuteStatementInput{Statement: aws.String(`SELECT * FROM "` + table + `" WHERE p = '1'`)})
	require.NoError(t, err)
	assert.Equal(t, item, statement.Items[0])
}

func readsStream(t *testing.T, caller caller, arn, table string) {
	t.Helper()
	client := dynamodbstreams.New(dynamodbstreams.Options{
		BaseEndpoint: aws.String(caller.endpoint), Region: caller.region, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(caller.accessKey, caller.secretKey, caller.sessionToken),
	})
	list, err := client.ListStreams(t.Context(), &dynamodbstreams.ListStreamsInput{TableName: &table})
	require.NoError(t, err)
	require.Len(t, list.Streams, 1)
	assert.Equal(t, arn, aws.ToString(list.Streams[0].StreamArn))
	stream, err := client.DescribeStream(t.Context(), &dynamodbstreams.DescribeStreamInput{StreamArn: &arn})
	require.NoError(t, err)
	require.NotEmpty(t, stream.StreamDescription.Shards)
	shard := stream.StreamDescription.Shards[0].ShardId
	assert.GreaterOrEqual(t, len(aws.ToString(shard)), 28, "boto3 takes no shorter one")
	start, err := client.GetShardIterator(t.Context(), &dynamodbstreams.GetShardIteratorInput{StreamArn: &arn, ShardId: shard, ShardIteratorType: streamtypes.ShardIteratorTypeTrimHorizon})
	require.NoError(t, err)
	iterator, records := start.ShardIterator, 0
	for end := time.Now().Add(time.Minute); records < 3 && iterator != nil && time.Now().Before(end); {
		page, err := client.GetRecords(t.Context(), &dynamodbstreams.GetRecordsInput{ShardIterator: iterator, Limit: aws.Int32(1)})
		require.NoError(t, err)
		for _, r := range page.Records {
			assert.Equal(t, "us-east-1", aws.ToString(r.AwsRegion))
		}
		records += len(page.Records)
		iterator = page.NextShardIterator
	}
	assert.Equal(t, 3, records)
	if caller.function {
		// What dynoxide gives out itself names a table that anybody can write into it.
		_, err = client.GetRecords(t.Context(), &dynamodbstreams.GetRecordsInput{ShardIterator: aws.String("eyJ0YWJsZV9uYW1lIjoib3RoZXIifQ==")})
		requireCode(t, err, "ValidationException")
	}
}
