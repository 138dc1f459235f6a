package main

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type item = map[string]types.AttributeValue

// table is a store with one table, in memory; err, when set, is its answer to everything.
type table struct {
	items map[string]item
	err   error
}

func id(key item) string { return key["id"].(*types.AttributeValueMemberS).Value }

func (t *table) PutItem(_ context.Context, in *dynamodb.PutItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	t.items[id(in.Item)] = in.Item
	return &dynamodb.PutItemOutput{}, t.err
}

func (t *table) GetItem(_ context.Context, in *dynamodb.GetItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	return &dynamodb.GetItemOutput{Item: t.items[id(in.Key)]}, t.err
}

func (t *table) UpdateItem(_ context.Context, in *dynamodb.UpdateItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	old, ok := t.items[id(in.Key)]
	if !ok {
		return nil, &types.ConditionalCheckFailedException{}
	}
	changed := maps.Clone(old)
	changed[in.ExpressionAttributeNames["#v"]] = in.ExpressionAttributeValues[":v"]
	t.items[id(in.Key)] = changed
	return &dynamodb.UpdateItemOutput{Attributes: changed}, t.err
}

func (t *table) DeleteItem(_ context.Context, in *dynamodb.DeleteItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	old := t.items[id(in.Key)]
	delete(t.items, id(in.Key))
	return &dynamodb.DeleteItemOutput{Attributes: old}, t.err
}

func TestActions_InOrder(t *testing.T) {
	f := &function{db: &table{items: map[string]item{}}}
	for _, step := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"action":"update","id":"1","value":"x"}`, 404, `{"message":"there is no such item"}`},
		{`{"action":"get","id":"1"}`, 404, `{"message":"there is no such item"}`},
		{`{"action":"put","id":"1","value":"one"}`, 200, `{"success":true,"action":"put","table":"esb-items","id":"1","value":"one"}`},
		{`{"action":"update","id":"1","value":""}`, 200, `{"success":true,"action":"update","table":"esb-items","id":"1","value":""}`},
		{`{"action":"get","id":"1"}`, 200, `{"success":true,"action":"get","table":"esb-items","id":"1","value":""}`},
		{`{"action":"delete","id":"1","table":"other"}`, 200, `{"success":true,"action":"delete","table":"other","id":"1","value":""}`},
		{`{"action":"delete","id":"1"}`, 200, `{"success":true,"action":"delete","table":"esb-items","id":"1"}`},
		{`{"action":"scan","id":"1"}`, 400, `{"message":"action must be put, get, update or delete"}`},
		{`{"action":"get"}`, 400, `{"message":"id is missing"}`},
		{`{"action":"put","id":"1"}`, 400, `{"message":"value is missing: it must be a text"}`},
	} {
		got, err := f.handle(context.Background(), events.APIGatewayProxyRequest{Body: step.body})
		require.NoError(t, err)
		assert.Equal(t, step.status, got.StatusCode, step.body)
		assert.Equal(t, step.want, got.Body, step.body)
	}
	got, err := f.handle(context.Background(), events.APIGatewayProxyRequest{Body: `{"action":"put","id":"1","value":3}`})
	require.NoError(t, err)
	assert.Equal(t, http.StatusBadRequest, got.StatusCode)
}

func TestStoreFails_IsToldWithoutDetails(t *testing.T) {
	for want, c := range map[string]struct {
		status int
		err    error
	}{
		`{"message":"the store cannot be reached"}`:                  {502, errors.New("dial tcp 10.88.0.1:8001: connection refused")},
		`{"message":"the store answered InvalidSignatureException"}`: {502, &smithy.GenericAPIError{Code: "InvalidSignatureException", Message: "secret detail"}},
		`{"message":"there is no such table"}`:                       {404, &types.ResourceNotFoundException{}},
	} {
		f := &function{db: &table{items: map[string]item{}, err: c.err}}
		got, err := f.handle(context.Background(), events.APIGatewayProxyRequest{Body: `{"action":"get","id":"1"}`})
		require.NoError(t, err)
		assert.Equal(t, c.status, got.StatusCode)
		assert.Equal(t, want, got.Body)
	}
}
