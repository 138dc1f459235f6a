package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/edge-serverless-box/esb/gateway"
)

// pollInterval is the pause before a table that is at work is looked at again.
const pollInterval = 200 * time.Millisecond

// tableStore is the DynamoDB store.
type tableStore struct {
	client *dynamodb.Client
	log    *slog.Logger
}

func (s *tableStore) ping(ctx context.Context) error {
	_, err := s.client.ListTables(ctx, &dynamodb.ListTablesInput{Limit: aws.Int32(1)}, func(o *dynamodb.Options) { o.RetryMaxAttempts = 1 })
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	return nil
}

func (s *tableStore) maker(definition any) maker {
	return &tableMaker{store: s, want: definition.(gateway.Table), outcome: make(map[string]string)}
}

// tableMaker makes one table and what belongs to it.
type tableMaker struct {
	store *tableStore
	want  gateway.Table
	// outcome has what became of each change that was asked for, so that a store that refuses or ignores one is not asked
	// again and again.
	outcome map[string]string
}

// ensure makes the table, then one change after the other: DynamoDB takes one at a time.
func (m *tableMaker) ensure(ctx context.Context) ([]string, error) {
	for {
		have, err := m.describe(ctx)
		var problem string
		switch {
		case err != nil:
			problem, err = decide("describe the table", err)
			return list(problem), err
		case have == nil:
			if problem, err = m.create(ctx); problem != "" || err != nil {
				return list(problem), err
			}
		case have.busy():
		default:
			changes, problems := plan(m.want, *have)
			next := m.next(changes)
			if next == nil {
				return append(problems, m.unmade(changes)...), nil
			}
			if err := m.make(ctx, *next); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until the table is active: %w", ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// next returns the first change that the store has not been asked for, and forgets those that are done.
func (m *tableMaker) next(changes []change) *change {
	open := make(map[string]string, len(changes))
	var next *change
	for i, c := range changes {
		if said, asked := m.outcome[c.what]; asked {
			open[c.what] = said
		} else if next == nil {
			next = &changes[i]
		}
	}
	m.outcome = open
	return next
}

// unmade are the changes that the store was asked for in vain.
func (m *tableMaker) unmade(changes []change) []string {
	problems := make([]string, 0, len(changes))
	for _, c := range changes {
		problems = append(problems, fmt.Sprintf("the store was asked to %s and %s", c.what, m.outcome[c.what]))
	}
	return problems
}

func (m *tableMaker) make(ctx context.Context, c change) error {
	var err error
	if c.ttl != nil {
		_, err = m.store.client.UpdateTimeToLive(ctx, c.ttl)
	} else {
		_, err = m.store.client.UpdateTable(ctx, c.update)
	}
	switch {
	case err == nil:
		m.outcome[c.what] = "has not done it"
		m.store.log.InfoContext(ctx, "table changed", "table", m.want.Name, "change", c.what)
	case temporary(err):
		return fmt.Errorf("%s: %w", c.what, err)
	default:
		m.outcome[c.what] = "refuses: " + refusal(err)
	}
	return nil
}

// observed is a table as its store describes it.
type observed struct {
	*types.TableDescription
	// ttl is nil when the store does not say.
	ttl *types.TimeToLiveDescription
}

// busy says whether the table is at work on an earlier change.
func (o *observed) busy() bool {
	if o.TableStatus != types.TableStatusActive && o.TableStatus != "" {
		return true
	}
	for _, i := range o.GlobalSecondaryIndexes {
		if i.IndexStatus != types.IndexStatusActive && i.IndexStatus != "" {
			return true
		}
	}
	return o.ttl != nil && o.ttl.TimeToLiveStatus == types.TimeToLiveStatusDisabling
}

// describe returns nil when there is no such table.
func (m *tableMaker) describe(ctx context.Context) (*observed, error) {
	name := aws.String(m.want.Name)
	table, err := m.store.client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: name})
	var none *types.ResourceNotFoundException
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if table.Table == nil {
		return nil, errors.New("the store's answer has no table in it")
	}
	o := &observed{TableDescription: table.Table}
	ttl, err := m.store.client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: name})
	switch {
	case err == nil:
		o.ttl = ttl.TimeToLiveDescription
	case temporary(err):
		return nil, err
	}
	return o, nil
}

// create makes the table with all its indexes and its stream; expiry comes after it, as DynamoDB wants it.
func (m *tableMaker) create(ctx context.Context) (problem string, err error) {
	t := m.want
	input := &dynamodb.CreateTableInput{
		TableName:             aws.String(t.Name),
		KeySchema:             keySchema(t.Key),
		AttributeDefinitions:  definitions(t),
		BillingMode:           billingMode(t),
		ProvisionedThroughput: capacity(t.Throughput),
		StreamSpecification:   stream(t),
	}
	for _, i := range t.GlobalIndexes {
		input.GlobalSecondaryIndexes = append(input.GlobalSecondaryIndexes, types.GlobalSecondaryIndex{
			IndexName: aws.String(i.Name), KeySchema: keySchema(i.Key), Projection: projection(i), ProvisionedThroughput: capacity(i.Throughput),
		})
	}
	for _, i := range t.LocalIndexes {
		input.LocalSecondaryIndexes = append(input.LocalSecondaryIndexes, types.LocalSecondaryIndex{
			IndexName: aws.String(i.Name), KeySchema: keySchema(i.Key), Projection: projection(i),
		})
	}
	if _, err := m.store.client.CreateTable(ctx, input); err != nil {
		return decide("make the table", err)
	}
	m.store.log.InfoContext(ctx, "table made", "table", t.Name)
	return "", nil
}

func keySchema(k gateway.TableKey) []types.KeySchemaElement {
	schema := []types.KeySchemaElement{{AttributeName: aws.String(k.Hash.Name), KeyType: types.KeyTypeHash}}
	if k.Range != nil {
		schema = append(schema, types.KeySchemaElement{AttributeName: aws.String(k.Range.Name), KeyType: types.KeyTypeRange})
	}
	return schema
}

// definitions are the types of all key attributes, each once.
func definitions(t gateway.Table) []types.AttributeDefinition {
	keys := []gateway.TableKey{t.Key}
	for _, i := range t.GlobalIndexes {
		keys = append(keys, i.Key)
	}
	for _, i := range t.LocalIndexes {
		keys = append(keys, i.Key)
	}
	return definitionsOf(keys...)
}

func definitionsOf(keys ...gateway.TableKey) []types.AttributeDefinition {
	var all []types.AttributeDefinition
	seen := make(map[string]bool)
	add := func(a gateway.KeyAttribute) {
		if !seen[a.Name] {
			seen[a.Name] = true
			all = append(all, types.AttributeDefinition{AttributeName: aws.String(a.Name), AttributeType: types.ScalarAttributeType(a.Type)})
		}
	}
	for _, k := range keys {
		add(k.Hash)
		if k.Range != nil {
			add(*k.Range)
		}
	}
	return all
}

func billingMode(t gateway.Table) types.BillingMode {
	if t.Throughput == nil {
		return types.BillingModePayPerRequest
	}
	return types.BillingModeProvisioned
}

func capacity(t *gateway.Throughput) *types.ProvisionedThroughput {
	if t == nil {
		return nil
	}
	return &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(int64(t.Read)), WriteCapacityUnits: aws.Int64(int64(t.Write))}
}

func stream(t gateway.Table) *types.StreamSpecification {
	if t.Stream == "" {
		return nil
	}
	return &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewType(t.Stream)}
}

func projection(i gateway.Index) *types.Projection {
	return &types.Projection{ProjectionType: types.ProjectionType(i.Projection), NonKeyAttributes: i.Include}
}
