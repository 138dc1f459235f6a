package provision

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
)

func attr(name, kind string) gateway.KeyAttribute {
	return gateway.KeyAttribute{Name: name, Type: kind}
}

func ranged(name, kind string) *gateway.KeyAttribute {
	a := attr(name, kind)
	return &a
}

// orders is a table with one of everything.
func orders() gateway.Table {
	return gateway.Table{
		Name: "orders", Key: gateway.TableKey{Hash: attr("customer", "S"), Range: ranged("placed", "N")},
		GlobalIndexes: []gateway.Index{{Name: "by-state", Key: gateway.TableKey{Hash: attr("state", "S")}, Projection: "INCLUDE", Include: []string{"b", "a"}}},
		LocalIndexes:  []gateway.Index{{Name: "by-total", Key: gateway.TableKey{Hash: attr("customer", "S"), Range: ranged("total", "N")}, Projection: "KEYS_ONLY"}},
		Stream:        "NEW_IMAGE", TTLAttribute: "expires",
	}
}

// described is how a store describes a table that was made as t.
func described(t gateway.Table) observed {
	o := observed{TableDescription: &types.TableDescription{
		TableName: aws.String(t.Name), TableStatus: types.TableStatusActive, KeySchema: keySchema(t.Key), AttributeDefinitions: definitions(t),
		StreamSpecification: stream(t), BillingModeSummary: &types.BillingModeSummary{BillingMode: billingMode(t)},
		ProvisionedThroughput: units(t.Throughput),
	}, ttl: &types.TimeToLiveDescription{TimeToLiveStatus: types.TimeToLiveStatusDisabled}}
	if t.TTLAttribute != "" {
		o.ttl = &types.TimeToLiveDescription{AttributeName: aws.String(t.TTLAttribute), TimeToLiveStatus: types.TimeToLiveStatusEnabling}
	}
	for _, i := range t.GlobalIndexes {
		o.GlobalSecondaryIndexes = append(o.GlobalSecondaryIndexes, types.GlobalSecondaryIndexDescription{
			IndexName: aws.String(i.Name), KeySchema: keySchema(i.Key), Projection: projection(i), IndexStatus: types.IndexStatusActive,
			ProvisionedThroughput: units(i.Throughput),
		})
	}
	for _, i := range t.LocalIndexes {
		o.LocalSecondaryIndexes = append(o.LocalSecondaryIndexes, types.LocalSecondaryIndexDescription{
			IndexName: aws.String(i.Name), KeySchema: keySchema(i.Key), Projection: projection(i),
		})
	}
	return o
}

func units(t *gateway.Throughput) *types.ProvisionedThroughputDescription {
	if t == nil {
		return &types.ProvisionedThroughputDescription{ReadCapacityUnits: aws.Int64(0), WriteCapacityUnits: aws.Int64(0)}
	}
	return &types.ProvisionedThroughputDescription{ReadCapacityUnits: aws.Int64(int64(t.Read)), WriteCapacityUnits: aws.Int64(int64(t.Write))}
}

// changed is a copy of orders with a change.
func changed(change func(t *gateway.Table)) gateway.Table {
	t := orders()
	change(&t)
	return t
}

func TestPlan_TellsWhatCanBeDoneFromWhatCannot(t *testing.T) {
	five := &gateway.Throughput{Read: 5, Write: 5}
	provisioned := func(t *gateway.Table) { t.Throughput, t.GlobalIndexes[0].Throughput = five, five }
	for name, c := range map[string]struct {
		want, have gateway.Table
		see        func(o *observed)
		changes    []string
		problems   []string
	}{
		"the same": {want: orders(), have: orders()},
		"the same, otherwise ordered": {want: orders(), have: orders(), see: func(o *observed) {
			o.GlobalSecondaryIndexes[0].Projection.NonKeyAttributes = []string{"a", "b"}
			o.KeySchema[0], o.KeySchema[1] = o.KeySchema[1], o.KeySchema[0]
		}},
		"a store that describes little": {want: changed(provisioned), have: orders(), see: func(o *observed) {
			o.BillingModeSummary, o.ProvisionedThroughput = nil, nil
		}},
		"nothing but a key yet": {
			want:    changed(func(t *gateway.Table) { t.LocalIndexes = nil }),
			have:    gateway.Table{Name: "orders", Key: orders().Key},
			changes: []string{"add the global index by-state", "switch the stream NEW_IMAGE on", "let items expire by expires"},
		},
		"everything but what is declared": {
			want: gateway.Table{Name: "orders", Key: orders().Key}, have: orders(),
			problems: []string{
				"has a local index by-total in the store that resources.yml does not declare: declare it, or delete it by hand",
				"has a global index by-state in the store that resources.yml does not declare: declare it, or delete it by hand",
				"has a stream NEW_IMAGE in the store that resources.yml does not declare: declare it, or switch it off by hand",
				"its items expire by expires in the store, and resources.yml does not say so: add ttl: expires, or switch it off by hand",
			},
		},
		"another key": {
			want: orders(), have: changed(func(t *gateway.Table) { t.Key.Range = ranged("placed", "S") }),
			problems: []string{"its key is customer S, placed S in the store, and customer S, placed N in resources.yml: a key cannot be changed; give the new table another name"},
		},
		"no range key": {
			want: orders(), have: changed(func(t *gateway.Table) { t.Key.Range = nil }),
			problems: []string{"its key is customer S in the store, and customer S, placed N in resources.yml: a key cannot be changed; give the new table another name"},
		},
		"local index missing": {
			want: orders(), have: changed(func(t *gateway.Table) { t.LocalIndexes = nil }),
			problems: []string{"has no local index by-total: local indexes are made with their table only; use a global index"},
		},
		"local index otherwise": {
			want: orders(), have: changed(func(t *gateway.Table) { t.LocalIndexes[0].Projection = "ALL" }),
			problems: []string{"its local index by-total has key customer S, total N, projection ALL in the store, and key customer S, total N, projection KEYS_ONLY in resources.yml: an index cannot be changed"},
		},
		"global index otherwise": {
			want: orders(), have: changed(func(t *gateway.Table) { t.GlobalIndexes[0].Include = []string{"a"} }),
			problems: []string{"its global index by-state has key state S, projection INCLUDE a in the store, and key state S, projection INCLUDE a b in resources.yml: an index cannot be changed; declare it under another name"},
		},
		"new index on a key of another type": {
			want: changed(func(t *gateway.Table) {
				t.GlobalIndexes = append(t.GlobalIndexes, gateway.Index{Name: "by-day", Key: gateway.TableKey{Hash: attr("total", "S")}, Projection: "ALL"})
			}), have: orders(),
			problems: []string{"its new index by-day wants the attribute total as S, and in the store it is a key of type N"},
		},
		"another stream and expiry": {
			want: orders(), have: changed(func(t *gateway.Table) { t.Stream, t.TTLAttribute = "KEYS_ONLY", "until" }),
			problems: []string{
				"its stream is KEYS_ONLY in the store, and NEW_IMAGE in resources.yml: a stream cannot be changed without losing what it holds; switch it off by hand",
				"its items expire by until in the store, and by expires in resources.yml: switch expiry off by hand, and it is switched on for expires",
			},
		},
		"to provisioned":        {want: changed(provisioned), have: orders(), changes: []string{"change the billing to PROVISIONED"}},
		"to pay per request":    {want: orders(), have: changed(provisioned), changes: []string{"change the billing to PAY_PER_REQUEST"}},
		"provisioned, unsaid":   {want: changed(provisioned), have: changed(provisioned), see: func(o *observed) { o.BillingModeSummary = nil }},
		"throughput of a table": {want: changed(provisioned), have: changed(func(t *gateway.Table) { provisioned(t); t.Throughput = &gateway.Throughput{Read: 5, Write: 6} }), changes: []string{"give the table 5 read and 5 write units"}},
		"throughput of an index": {want: changed(provisioned), have: changed(func(t *gateway.Table) {
			provisioned(t)
			t.GlobalIndexes[0].Throughput = &gateway.Throughput{Read: 1, Write: 1}
		}), changes: []string{"give index by-state 5 read and 5 write units"}},
	} {
		t.Run(name, func(t *testing.T) {
			have := described(c.have)
			if c.see != nil {
				c.see(&have)
			}
			changes, problems := plan(c.want, have)
			var what []string
			for _, change := range changes {
				what = append(what, change.what)
				assert.True(t, (change.update == nil) != (change.ttl == nil), "one request a change")
			}
			assert.Equal(t, c.changes, what)
			assert.Equal(t, c.problems, problems)
		})
	}
}

func TestPlan_ToProvisioned_GivesItsShareToEachIndexThatIsThere(t *testing.T) {
	want := changed(func(t *gateway.Table) {
		t.Throughput = &gateway.Throughput{Read: 5, Write: 6}
		t.GlobalIndexes[0].Throughput = &gateway.Throughput{Read: 1, Write: 2}
		t.GlobalIndexes = append(t.GlobalIndexes, gateway.Index{Name: "new", Key: gateway.TableKey{Hash: attr("x", "S")}, Projection: "ALL", Throughput: t.Throughput})
	})
	changes, _ := plan(want, described(orders()))
	updates := changes[0].update.GlobalSecondaryIndexUpdates
	assert.Len(t, updates, 1)
	assert.Equal(t, "by-state", *updates[0].Update.IndexName)
	assert.EqualValues(t, 2, *updates[0].Update.ProvisionedThroughput.WriteCapacityUnits)
	assert.EqualValues(t, 6, *changes[0].update.ProvisionedThroughput.WriteCapacityUnits)
}
