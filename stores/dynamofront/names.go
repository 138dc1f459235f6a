package dynamofront

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Names say how a store writes what AWS writes with region and account, and what it should be.
type Names struct {
	// Region and Account are the box's.
	Region, Account string
	// StoreRegion and StoreAccount are those in the ARNs of the store, which knows no others. Empty: its ARNs are left alone.
	StoreRegion, StoreAccount string
}

func (n Names) ours() string { return "arn:aws:dynamodb:" + n.Region + ":" + n.Account + ":" }
func (n Names) store() string {
	return "arn:aws:dynamodb:" + n.StoreRegion + ":" + n.StoreAccount + ":"
}

// maps says whether the store has ARNs of its own that clients must not see.
func (n Names) maps() bool { return n.StoreRegion != "" }

// edit is a piece of a body that is replaced.
type edit struct {
	from, to int
	text     []byte
}

// editor collects edits of one body, which is valid JSON, in order.
type editor struct {
	body  []byte
	edits []edit
}

// replace puts a text in place of a value, which is a part of the body.
func (e *editor) replace(value []byte, text string) {
	from := cap(e.body) - cap(value)
	data, _ := json.Marshal(text) // a text always can be
	e.edits = append(e.edits, edit{from, from + len(value), data})
}

// apply returns the body with all edits.
func (e *editor) apply() []byte {
	if len(e.edits) == 0 {
		return e.body
	}
	var b bytes.Buffer
	at := 0
	for _, edit := range e.edits {
		b.Write(e.body[at:edit.from])
		b.Write(edit.text)
		at = edit.to
	}
	b.Write(e.body[at:])
	return b.Bytes()
}

// renamed are names of tables that an answer must have as the request had them: ARNs, by the table's name.
type renamed map[string]string

// errForeign is AWS's answer where a resource of another account gives no right to anybody.
func (o operation) foreign(arn string) error {
	return &answer{http.StatusBadRequest, "com.amazon.coral.service#AccessDeniedException", "User is not authorized to perform: dynamodb:" + o.name + " on resource: " + arn + " because no resource-based policy allows the dynamodb:" + o.name + " action"}
}

// toStore names tables as the store knows them: it takes no ARN for a name, and only ARNs of its own. body is valid JSON.
func (n Names) toStore(o operation, body []byte) ([]byte, renamed, error) {
	e := &editor{body: body[:len(body):len(body)]}
	names := renamed{}
	table := func(value []byte) error {
		name, _ := text(value)
		m := tableARN.FindStringSubmatch(name)
		if m == nil {
			return nil // a name, or something for the store to refuse
		}
		if !n.own(name) {
			return o.foreign(name)
		}
		names[m[1]] = name
		e.replace(value, m[1])
		return nil
	}
	arn := func(value []byte) error {
		name, err := text(value)
		if rest, ok := strings.CutPrefix(name, n.ours()); err == nil && ok && n.maps() {
			e.replace(value, n.store()+rest)
		}
		return nil
	}
	stream := ""
	err := members(e.body, func(member string, value []byte) error {
		switch member {
		case "TableName", "GlobalTableName":
			return table(value)
		case "StreamArn", "ResourceArn", "ExclusiveStartStreamArn":
			if m := streamARN.FindStringSubmatch(strings.Trim(string(value), `"`)); m != nil {
				stream = m[1]
			}
			return arn(value)
		case "RequestItems":
			return pairs(value, func(key, _ []byte) error { return table(key) })
		case "TransactItems":
			return elements(value, func(item []byte) error {
				return members(item, func(_ string, action []byte) error {
					return members(action, func(member string, value []byte) error {
						if member == "TableName" {
							return table(value)
						}
						return nil
					})
				})
			})
		}
		return nil
	})
	if err != nil {
		// What has another shape is the store's to refuse.
		if errors.Is(err, errShape) {
			return body, nil, nil
		}
		return nil, nil, err
	}
	changed := e.apply()
	if n.maps() && stream != "" {
		changed = shardsToStore(changed, stream)
	}
	return changed, names, nil
}

// own says whether an ARN is of the box, or of the store.
func (n Names) own(arn string) bool {
	return strings.HasPrefix(arn, n.ours()) || n.maps() && strings.HasPrefix(arn, n.store())
}

var (
	storeShard = regexp.MustCompile(`"shardId-([0-9]{8})-[a-zA-Z0-9_.-]+"`)
	ourShard   = regexp.MustCompile(`"(ShardId|ExclusiveStartShardId)"(\s*:\s*)"shardId-([0-9]{20})-0{8}"`)
)

// shards makes ids of shards as long as AWS's, which boto3 wants (28 characters and more; DynamoDB Streams API reference, Shard):
// dynoxide writes shardId-00000001-table.
func shards(body []byte) []byte {
	return storeShard.ReplaceAllFunc(body, func(id []byte) []byte {
		number, _ := strconv.ParseUint(string(id[len(`"shardId-`):len(`"shardId-`)+8]), 10, 64) // the pattern is of digits
		return fmt.Appendf(nil, `"shardId-%020d-00000000"`, number)
	})
}

// shardsToStore is the opposite. Such an id is nothing but digits, so that no other text of a request looks like one.
func shardsToStore(body []byte, table string) []byte {
	return ourShard.ReplaceAllFunc(body, func(member []byte) []byte {
		m := ourShard.FindSubmatch(member)
		number, err := strconv.ParseUint(string(m[3]), 10, 64)
		if err != nil {
			return member
		}
		return fmt.Appendf(nil, `"%s"%s"shardId-%08d-%s"`, m[1], m[2], number, table)
	})
}

// items are the operations whose answers have items of users, in which nothing is replaced.
var items = map[string]bool{
	"GetItem": true, "PutItem": true, "UpdateItem": true, "DeleteItem": true, "Query": true, "Scan": true, "BatchGetItem": true,
	"BatchWriteItem": true, "TransactGetItems": true, "TransactWriteItems": true, "ExecuteStatement": true, "BatchExecuteStatement": true,
	"ExecuteTransaction": true, "GetRecords": true,
}

// fromStore names things in an answer as AWS does. body is what the store has answered.
func (n Names) fromStore(o operation, body []byte, names renamed) []byte {
	if n.maps() {
		switch {
		case o.name == "GetRecords":
			// In an item, the value of an attribute is an object, and a text has no quotation mark.
			body = bytes.ReplaceAll(body, []byte(`"awsRegion":"`+n.StoreRegion+`"`), []byte(`"awsRegion":"`+n.Region+`"`))
		case !items[o.name]:
			body = bytes.ReplaceAll(body, []byte(`"`+n.store()), []byte(`"`+n.ours()))
			if o.name == "DescribeStream" {
				body = shards(body)
			}
		}
	}
	if len(names) == 0 || (o.means.tables != batch) || !json.Valid(body) {
		return body
	}
	// Of tables that were asked for by their ARNs, the answer has the ARNs (DynamoDB API reference, BatchGetItem).
	e := &editor{body: body[:len(body):len(body)]}
	err := members(e.body, func(member string, value []byte) error {
		switch member {
		case "Responses", "UnprocessedKeys", "UnprocessedItems", "ItemCollectionMetrics":
			return pairs(value, func(key, _ []byte) error {
				if name, err := text(key); err == nil && names[name] != "" {
					e.replace(key, names[name])
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return body
	}
	return e.apply()
}
