// Command lambda-dynamodb is a sample function: it puts, gets, updates and deletes items of the box's DynamoDB store with
// the AWS SDK as it comes. The box leads the SDK there: AWS_ENDPOINT_URL_DYNAMODB and credentials are in the function's
// environment.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/edge-serverless-box/esb/functions/internal/apigw"
)

// defaultTable is one of functions/resources.yml.
const defaultTable = "esb-items"

// order is the body of a request.
type order struct {
	Action string  `json:"action"`
	Table  string  `json:"table"`
	ID     string  `json:"id"`
	Value  *string `json:"value"`
}

// answer is the body of a 200.
type answer struct {
	Success bool   `json:"success"`
	Action  string `json:"action"`
	Table   string `json:"table"`
	ID      string `json:"id"`
	// Value is what the item holds now, or held when it was deleted; absent when there was none to delete.
	Value *string `json:"value,omitempty"`
}

// client is what this function uses of *dynamodb.Client.
type client interface {
	PutItem(ctx context.Context, in *dynamodb.PutItemInput, o ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	GetItem(ctx context.Context, in *dynamodb.GetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, o ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, o ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
}

type function struct{ db client }

func main() {
	settings, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "lambda-dynamodb: read the SDK's settings:", err)
		os.Exit(1)
	}
	lambda.Start((&function{db: dynamodb.NewFromConfig(settings)}).handle)
}

// refusal is an answer other than 200.
type refusal struct {
	status  int
	message string
}

func (r refusal) Error() string { return r.message }

func noItem() refusal { return refusal{http.StatusNotFound, "there is no such item"} }

func (f *function) handle(ctx context.Context, request events.APIGatewayProxyRequest) (events.APIGatewayProxyResponse, error) {
	var o order
	if err := apigw.Decode(request, &o); err != nil {
		return apigw.Message(http.StatusBadRequest, err.Error())
	}
	if o.Table == "" {
		o.Table = defaultTable
	}
	a, err := f.do(ctx, o)
	if err == nil {
		return apigw.JSON(http.StatusOK, a)
	}
	var r refusal
	if !errors.As(err, &r) {
		r = explain(err)
		fmt.Fprintln(os.Stderr, "lambda-dynamodb:", o.Action, o.Table, o.ID, err)
	}
	return apigw.Message(r.status, r.message)
}

func (f *function) do(ctx context.Context, o order) (answer, error) {
	actions := map[string]func(context.Context, order, *answer) error{
		"put": f.put, "get": f.get, "update": f.update, "delete": f.remove,
	}
	act, ok := actions[o.Action]
	switch {
	case !ok:
		return answer{}, refusal{http.StatusBadRequest, "action must be put, get, update or delete"}
	case o.ID == "":
		return answer{}, refusal{http.StatusBadRequest, "id is missing"}
	case o.Value == nil && (o.Action == "put" || o.Action == "update"):
		return answer{}, refusal{http.StatusBadRequest, "value is missing: it must be a text"}
	}
	a := answer{Success: true, Action: o.Action, Table: o.Table, ID: o.ID}
	err := act(ctx, o, &a)
	return a, err
}

func (f *function) put(ctx context.Context, o order, a *answer) error {
	item := key(o)
	item["value"] = &types.AttributeValueMemberS{Value: *o.Value}
	if _, err := f.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &o.Table, Item: item}); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	a.Value = o.Value
	return nil
}

func (f *function) get(ctx context.Context, o order, a *answer) error {
	out, err := f.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &o.Table, Key: key(o), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if out.Item == nil {
		return noItem()
	}
	a.Value = value(out.Item)
	return nil
}

// update changes an item that must be there.
func (f *function) update(ctx context.Context, o order, a *answer) error {
	out, err := f.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:                 &o.Table,
		Key:                       key(o),
		ConditionExpression:       aws.String("attribute_exists(id)"),
		UpdateExpression:          aws.String("SET #v = :v"),
		ExpressionAttributeNames:  map[string]string{"#v": "value"},
		ExpressionAttributeValues: map[string]types.AttributeValue{":v": &types.AttributeValueMemberS{Value: *o.Value}},
		ReturnValues:              types.ReturnValueAllNew,
	})
	var none *types.ConditionalCheckFailedException
	if errors.As(err, &none) {
		return noItem()
	}
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	a.Value = value(out.Attributes)
	return nil
}

// remove is delete. As in DynamoDB, deleting what is not there is no error.
func (f *function) remove(ctx context.Context, o order, a *answer) error {
	out, err := f.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &o.Table, Key: key(o), ReturnValues: types.ReturnValueAllOld})
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	a.Value = value(out.Attributes)
	return nil
}

func key(o order) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: o.ID}}
}

// value is the text of an item, nil when it has none.
func value(item map[string]types.AttributeValue) *string {
	if s, ok := item["value"].(*types.AttributeValueMemberS); ok {
		return &s.Value
	}
	return nil
}

// explain makes an answer of the store's error.
func explain(err error) refusal {
	var said smithy.APIError
	if !errors.As(err, &said) {
		return refusal{http.StatusBadGateway, "the store cannot be reached"}
	}
	switch said.ErrorCode() {
	case "ResourceNotFoundException":
		return refusal{http.StatusNotFound, "there is no such table"}
	case "AccessDeniedException":
		return refusal{http.StatusForbidden, "this function has no such access: its tables in functions.yml says what it may use"}
	}
	return refusal{http.StatusBadGateway, "the store answered " + said.ErrorCode()}
}
