package ttl

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fake is a store with one page of expired items for each table with TTL. What expressions mean is the business of the
// store, and of the test with the real one (package app).
type fake struct {
	API
	tables    map[string]types.TimeToLiveStatus
	expired   map[string][]string
	refreshed map[string]bool
	gone      map[string]bool
	deleted   []string
}

func (f *fake) ListTables(context.Context, *dynamodb.ListTablesInput, ...func(*dynamodb.Options)) (*dynamodb.ListTablesOutput, error) {
	var names []string
	for name := range f.tables {
		names = append(names, name)
	}
	return &dynamodb.ListTablesOutput{TableNames: names}, nil
}

func (f *fake) DescribeTimeToLive(_ context.Context, in *dynamodb.DescribeTimeToLiveInput, _ ...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error) {
	if f.gone[*in.TableName] {
		return nil, &types.ResourceNotFoundException{}
	}
	if f.tables[*in.TableName] == "" {
		return nil, errors.New("broken")
	}
	return &dynamodb.DescribeTimeToLiveOutput{TimeToLiveDescription: &types.TimeToLiveDescription{
		AttributeName: aws.String("until"), TimeToLiveStatus: f.tables[*in.TableName],
	}}, nil
}

func (f *fake) DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
	return &dynamodb.DescribeTableOutput{Table: &types.TableDescription{KeySchema: []types.KeySchemaElement{
		{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash},
	}}}, nil
}

func (f *fake) Scan(_ context.Context, in *dynamodb.ScanInput, _ ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error) {
	out := &dynamodb.ScanOutput{}
	for _, id := range f.expired[*in.TableName] {
		out.Items = append(out.Items, map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: id}})
	}
	return out, nil
}

func (f *fake) DeleteItem(_ context.Context, in *dynamodb.DeleteItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	id := in.Key["id"].(*types.AttributeValueMemberS).Value
	// The store must be asked to look again: else a refreshed item is lost.
	if in.ConditionExpression == nil || f.refreshed[id] {
		return nil, &types.ConditionalCheckFailedException{}
	}
	f.deleted = append(f.deleted, *in.TableName+"/"+id)
	return &dynamodb.DeleteItemOutput{}, nil
}

func TestSweep_DeletesWhatHasExpiredAndWasNotRefreshed(t *testing.T) {
	f := &fake{
		tables:    map[string]types.TimeToLiveStatus{"on": types.TimeToLiveStatusEnabled, "off": types.TimeToLiveStatusDisabled},
		expired:   map[string][]string{"on": {"a", "b", "c"}, "off": {"x"}},
		refreshed: map[string]bool{"b": true},
	}
	deleted, err := New(f).Sweep(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 2, deleted)
	assert.Equal(t, []string{"on/a", "on/c"}, f.deleted)
}

func TestSweep_OneTableFails_SweepsTheOthersAndSaysSo(t *testing.T) {
	f := &fake{
		tables:  map[string]types.TimeToLiveStatus{"broken": "", "on": types.TimeToLiveStatusEnabled, "gone": types.TimeToLiveStatusEnabled},
		expired: map[string][]string{"on": {"a"}}, gone: map[string]bool{"gone": true},
	}
	deleted, err := New(f).Sweep(t.Context())
	assert.Equal(t, 1, deleted)
	require.ErrorContains(t, err, "table broken")
	assert.NotContains(t, err.Error(), "gone", "a table that was deleted meanwhile is no error")
}

func TestSweep_ManyItems_AreDeletedAtABoundedRate(t *testing.T) {
	f := &fake{tables: map[string]types.TimeToLiveStatus{"on": types.TimeToLiveStatusEnabled}, expired: map[string][]string{}}
	for i := range 21 {
		f.expired["on"] = append(f.expired["on"], strconv.Itoa(i))
	}
	start := time.Now()
	deleted, err := New(f).Sweep(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 21, deleted)
	assert.GreaterOrEqual(t, time.Since(start), 20*time.Second/deletesPerSecond-time.Millisecond)
}

func TestClose_EndsASweepThatWaits(t *testing.T) {
	f := &fake{tables: map[string]types.TimeToLiveStatus{}}
	s := Start(f, time.Hour, slog.New(slog.DiscardHandler))
	require.NoError(t, s.Close())
}
