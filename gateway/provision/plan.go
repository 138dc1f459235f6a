package provision

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/edge-serverless-box/esb/gateway"
)

// change is one thing that DynamoDB can do to a table that is there: either of update and ttl.
type change struct {
	// what completes "the store was asked to"; it also identifies the change.
	what   string
	update *dynamodb.UpdateTableInput
	ttl    *dynamodb.UpdateTimeToLiveInput
}

// plan compares a table that is there with what is wanted. It returns what can be done about it, one request each, and
// what cannot without losing something.
func plan(want gateway.Table, have observed) (changes []change, problems []string) {
	p := planner{want: want, have: have, types: make(map[string]string)}
	for _, d := range have.AttributeDefinitions {
		p.types[aws.ToString(d.AttributeName)] = string(d.AttributeType)
	}
	if w, h := p.wanted(want.Key), p.keys(have.KeySchema); w != h {
		p.problemf("its key is %s in the store, and %s in resources.yml: a key cannot be changed; give the new table another name", h, w)
	}
	p.billing()
	p.localIndexes()
	p.globalIndexes()
	p.stream()
	p.expiry()
	return p.changes, p.problems
}

type planner struct {
	want     gateway.Table
	have     observed
	types    map[string]string // of the attributes of the table that is there
	changes  []change
	problems []string
}

func (p *planner) problemf(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

func (p *planner) update(what string, input *dynamodb.UpdateTableInput) {
	input.TableName = aws.String(p.want.Name)
	p.changes = append(p.changes, change{what: what, update: input})
}

// wanted and keys write a key as text: "id S, created N".
func (p *planner) wanted(k gateway.TableKey) string {
	text := k.Hash.Name + " " + k.Hash.Type
	if k.Range != nil {
		text += ", " + k.Range.Name + " " + k.Range.Type
	}
	return text
}

func (p *planner) keys(schema []types.KeySchemaElement) string {
	var hash, rest string
	for _, e := range schema {
		text := aws.ToString(e.AttributeName) + " " + p.types[aws.ToString(e.AttributeName)]
		if e.KeyType == types.KeyTypeHash {
			hash = text
		} else {
			rest += ", " + text
		}
	}
	return hash + rest
}

// index is a secondary index as text, for comparison and messages.
func indexText(keys, projectionType string, include []string) string {
	text := "key " + keys + ", projection " + projectionType
	if len(include) > 0 {
		include = slices.Sorted(slices.Values(include))
		text += " " + strings.Join(include, " ")
	}
	return text
}

func (p *planner) wantedIndex(i gateway.Index) string {
	return indexText(p.wanted(i.Key), i.Projection, i.Include)
}

func (p *planner) index(schema []types.KeySchemaElement, projection *types.Projection) string {
	if projection == nil {
		projection = &types.Projection{ProjectionType: types.ProjectionTypeAll}
	}
	return indexText(p.keys(schema), string(projection.ProjectionType), projection.NonKeyAttributes)
}

func (p *planner) localIndexes() {
	have := make(map[string]string)
	for _, i := range p.have.LocalSecondaryIndexes {
		have[aws.ToString(i.IndexName)] = p.index(i.KeySchema, i.Projection)
	}
	for _, i := range p.want.LocalIndexes {
		want := p.wantedIndex(i)
		switch h, there := have[i.Name]; {
		case !there:
			p.problemf("has no local index %s: local indexes are made with their table only; use a global index", i.Name)
		case h != want:
			p.problemf("its local index %s has %s in the store, and %s in resources.yml: an index cannot be changed", i.Name, h, want)
		}
		delete(have, i.Name)
	}
	p.undeclared("local", have)
}

func (p *planner) globalIndexes() {
	have := make(map[string]string)
	throughput := make(map[string]*types.ProvisionedThroughputDescription)
	for _, i := range p.have.GlobalSecondaryIndexes {
		have[aws.ToString(i.IndexName)] = p.index(i.KeySchema, i.Projection)
		throughput[aws.ToString(i.IndexName)] = i.ProvisionedThroughput
	}
	mode := p.mode()
	for _, i := range p.want.GlobalIndexes {
		want := p.wantedIndex(i)
		h, there := have[i.Name]
		delete(have, i.Name)
		switch {
		case !there:
			p.newIndex(i)
		case h != want:
			p.problemf("its global index %s has %s in the store, and %s in resources.yml: an index cannot be changed; declare it under another name", i.Name, h, want)
		case mode == types.BillingModeProvisioned && i.Throughput != nil && !same(throughput[i.Name], i.Throughput):
			p.update(fmt.Sprintf("give index %s %d read and %d write units", i.Name, i.Throughput.Read, i.Throughput.Write), &dynamodb.UpdateTableInput{
				GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Update: &types.UpdateGlobalSecondaryIndexAction{
					IndexName: aws.String(i.Name), ProvisionedThroughput: capacity(i.Throughput),
				}}},
			})
		}
	}
	p.undeclared("global", have)
}

// newIndex adds a global index, unless the store has one of its attributes with another type.
func (p *planner) newIndex(i gateway.Index) {
	definitions := definitionsOf(i.Key)
	for _, d := range definitions {
		name := aws.ToString(d.AttributeName)
		if kind, known := p.types[name]; known && kind != string(d.AttributeType) {
			p.problemf("its new index %s wants the attribute %s as %s, and in the store it is a key of type %s", i.Name, name, d.AttributeType, kind)
			return
		}
	}
	// DynamoDB wants the types of the keys that are there as well.
	for _, d := range p.have.AttributeDefinitions {
		if !slices.ContainsFunc(definitions, func(o types.AttributeDefinition) bool {
			return aws.ToString(o.AttributeName) == aws.ToString(d.AttributeName)
		}) {
			definitions = append(definitions, d)
		}
	}
	p.update("add the global index "+i.Name, &dynamodb.UpdateTableInput{
		AttributeDefinitions: definitions,
		GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: &types.CreateGlobalSecondaryIndexAction{
			IndexName: aws.String(i.Name), KeySchema: keySchema(i.Key), Projection: projection(i), ProvisionedThroughput: capacity(i.Throughput),
		}}},
	})
}

// undeclared reports indexes that are in the store only.
func (p *planner) undeclared(kind string, have map[string]string) {
	names := make([]string, 0, len(have))
	for name := range have {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p.problemf("has a %s index %s in the store that resources.yml does not declare: declare it, or delete it by hand", kind, name)
	}
}

// mode is the billing mode of the table that is there, empty when the store does not say (ScyllaDB's Alternator describes
// neither in older versions).
func (p *planner) mode() types.BillingMode {
	if s := p.have.BillingModeSummary; s != nil && s.BillingMode != "" {
		return s.BillingMode
	}
	if t := p.have.ProvisionedThroughput; t != nil && aws.ToInt64(t.ReadCapacityUnits) > 0 {
		return types.BillingModeProvisioned // DynamoDB leaves the summary out for tables that were made so
	}
	return ""
}

// same is true as well when the store does not describe the throughput, as some stand-ins do not for indexes.
func same(have *types.ProvisionedThroughputDescription, want *gateway.Throughput) bool {
	if have == nil || aws.ToInt64(have.ReadCapacityUnits) == 0 {
		return true
	}
	return aws.ToInt64(have.ReadCapacityUnits) == int64(want.Read) && aws.ToInt64(have.WriteCapacityUnits) == int64(want.Write)
}

func (p *planner) billing() {
	have, want := p.mode(), billingMode(p.want)
	switch {
	case have == "":
	case have != want:
		input := &dynamodb.UpdateTableInput{BillingMode: want, ProvisionedThroughput: capacity(p.want.Throughput)}
		if want == types.BillingModeProvisioned {
			// Each index that is there needs its share in the same request.
			for _, i := range p.want.GlobalIndexes {
				if slices.ContainsFunc(p.have.GlobalSecondaryIndexes, func(h types.GlobalSecondaryIndexDescription) bool {
					return aws.ToString(h.IndexName) == i.Name
				}) {
					input.GlobalSecondaryIndexUpdates = append(input.GlobalSecondaryIndexUpdates, types.GlobalSecondaryIndexUpdate{
						Update: &types.UpdateGlobalSecondaryIndexAction{IndexName: aws.String(i.Name), ProvisionedThroughput: capacity(i.Throughput)},
					})
				}
			}
		}
		p.update("change the billing to "+string(want), input)
	case want == types.BillingModeProvisioned && !same(p.have.ProvisionedThroughput, p.want.Throughput):
		p.update(fmt.Sprintf("give the table %d read and %d write units", p.want.Throughput.Read, p.want.Throughput.Write),
			&dynamodb.UpdateTableInput{ProvisionedThroughput: capacity(p.want.Throughput)})
	}
}

func (p *planner) stream() {
	have := ""
	if s := p.have.StreamSpecification; s != nil && aws.ToBool(s.StreamEnabled) {
		have = string(s.StreamViewType)
	}
	switch want := p.want.Stream; {
	case have == want:
	case have == "":
		p.update("switch the stream "+want+" on", &dynamodb.UpdateTableInput{StreamSpecification: stream(p.want)})
	case want == "":
		p.problemf("has a stream %s in the store that resources.yml does not declare: declare it, or switch it off by hand", have)
	default:
		p.problemf("its stream is %s in the store, and %s in resources.yml: a stream cannot be changed without losing what it holds; switch it off by hand", have, want)
	}
}

func (p *planner) expiry() {
	have := ""
	if t := p.have.ttl; t != nil && (t.TimeToLiveStatus == types.TimeToLiveStatusEnabled || t.TimeToLiveStatus == types.TimeToLiveStatusEnabling) {
		have = aws.ToString(t.AttributeName)
	}
	switch want := p.want.TTLAttribute; {
	case have == want:
	case have == "":
		p.changes = append(p.changes, change{what: "let items expire by " + want, ttl: &dynamodb.UpdateTimeToLiveInput{
			TableName:               aws.String(p.want.Name),
			TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(want), Enabled: aws.Bool(true)},
		}})
	case want == "":
		p.problemf("its items expire by %s in the store, and resources.yml does not say so: add ttl: %s, or switch it off by hand", have, have)
	default:
		p.problemf("its items expire by %s in the store, and by %s in resources.yml: switch expiry off by hand, and it is switched on for %s", have, want, want)
	}
}
