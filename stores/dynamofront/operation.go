package dynamofront

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/stores/front"
)

// operation is what a request asks for, by its header X-Amz-Target.
type operation struct {
	// name is that of the API, "GetItem".
	name  string
	means meaning
}

// meaning says whose rights an operation needs, and where its body names the tables.
type meaning struct {
	tables tables
	access functionaccess.Access
}

// tables says where the tables of an operation are.
type tables int

const (
	// nobody: no function may, whatever functions.yml gives it.
	nobody tables = iota
	// none: it tells nothing of a table.
	none
	// one is the member TableName.
	one
	// all: it may touch every table.
	all
	// batch are the members of RequestItems.
	batch
	// transaction are those of the members of TransactItems.
	transaction
	// stream is that of the member StreamArn.
	stream
	// resource is that of the member ResourceArn.
	resource
	// statement is that of a statement in PartiQL, statements are those of several.
	statement
	statements
	// iterator is that of an iterator, which the front has signed.
	iterator
)

const (
	read  = functionaccess.Read
	write = functionaccess.Write
)

// operations are those that functions may do, by their target (DynamoDB API reference). What is not here makes, changes or
// deletes tables, or is not known: no function may.
var operations = map[string]meaning{
	"DynamoDB_20120810.GetItem": {one, read}, "DynamoDB_20120810.Query": {one, read}, "DynamoDB_20120810.Scan": {one, read},
	"DynamoDB_20120810.PutItem": {one, write}, "DynamoDB_20120810.UpdateItem": {one, write}, "DynamoDB_20120810.DeleteItem": {one, write},
	"DynamoDB_20120810.DescribeTable": {one, read}, "DynamoDB_20120810.DescribeTimeToLive": {one, read},
	"DynamoDB_20120810.BatchGetItem": {batch, read}, "DynamoDB_20120810.BatchWriteItem": {batch, write},
	"DynamoDB_20120810.TransactGetItems": {transaction, read}, "DynamoDB_20120810.TransactWriteItems": {transaction, write},
	"DynamoDB_20120810.ListTagsOfResource": {resource, read}, "DynamoDB_20120810.ListTables": {all, read},
	"DynamoDB_20120810.ExecuteStatement": {statement, read}, "DynamoDB_20120810.BatchExecuteStatement": {statements, read},
	"DynamoDB_20120810.ExecuteTransaction": {statements, read}, "DynamoDB_20120810.DescribeContinuousBackups": {one, read},
	"DynamoDB_20120810.DescribeEndpoints": {none, read}, "DynamoDB_20120810.DescribeLimits": {none, read},
	"DynamoDBStreams_20120810.ListStreams": {one, read}, "DynamoDBStreams_20120810.DescribeStream": {stream, read},
	"DynamoDBStreams_20120810.GetShardIterator": {stream, read}, "DynamoDBStreams_20120810.GetRecords": {iterator, read},
}

// parse finds out what a request asks for.
func parse(header http.Header) (operation, error) {
	targets := header["X-Amz-Target"]
	if len(targets) != 1 || len(header["Content-Encoding"]) > 0 {
		return operation{}, &answer{http.StatusBadRequest, "com.amazon.coral.service#UnknownOperationException", "The request needs one header X-Amz-Target, and no Content-Encoding."}
	}
	_, name, _ := strings.Cut(targets[0], ".")
	return operation{name: name, means: operations[targets[0]]}, nil
}

// possible says whether a function with some rights may do the operation at all, which can be said without the body of
// some.
func (o operation) possible(rights functionaccess.Rights, region string) error {
	switch o.means.tables {
	case nobody:
		return o.denied(rights, region, "*", "tables are made by resources.yml, and functions work with their items only")
	case all:
		if !rights.AllTables(o.means.access) {
			return o.denied(rights, region, "*", "functions.yml gives function "+rights.Name+" no access to all tables (tables: [\"*\"])")
		}
	default:
		if o.means.tables != none && len(rights.Tables) == 0 {
			return o.denied(rights, region, "*", why(rights))
		}
	}
	return nil
}

// allowed says whether a function with some rights may do the operation with the tables that the body names.
func (o operation) allowed(rights functionaccess.Rights, region string, body []byte) error {
	if err := o.possible(rights, region); err != nil {
		return err
	}
	if !json.Valid(body) {
		return unreadable("The request body is no JSON.")
	}
	if o.means.tables == statement || o.means.tables == statements {
		return o.allowedStatements(rights, region, body)
	}
	names, err := o.named(body)
	if err != nil {
		return err
	}
	for _, name := range names {
		table, ok := o.tableOf(name)
		if !ok {
			return &answer{http.StatusBadRequest, "com.amazon.coral.validate#ValidationException", fmt.Sprintf("Invalid table/index name.  Table/index names must be between 3 and 255 characters long, and may contain only the characters a-z, A-Z, 0-9, '_', '-', and '.': %.300q", name)}
		}
		if !rights.Items(table, o.means.access) {
			return o.denied(rights, region, table, why(rights))
		}
	}
	return nil
}

// allowedStatements says whether a function may do what statements in PartiQL say.
func (o operation) allowedStatements(rights functionaccess.Rights, region string, body []byte) error {
	one := func(object []byte) error {
		texts, err := only(object, "Statement")
		if err != nil {
			return err
		}
		table, access, ok := statementTable(texts[0])
		switch {
		case ok && rights.Items(table, access), !ok && rights.AllTables(write):
			return nil
		case ok:
			return o.denied(rights, region, table, why(rights))
		}
		return o.denied(rights, region, "*", "the statement does not name one table plainly, and functions.yml gives function "+rights.Name+" no access to all tables (tables: [\"*\"])")
	}
	if o.means.tables == statement {
		return one(body)
	}
	list := "Statements"
	if o.name == "ExecuteTransaction" {
		list = "TransactStatements"
	}
	all, err := member(body, list)
	if err != nil {
		return err
	}
	return shaped(elements(all, one), list)
}

func why(rights functionaccess.Rights) string {
	return "functions.yml gives function " + rights.Name + " no such access (tables)"
}

func (o operation) denied(rights functionaccess.Rights, region, table, why string) error {
	arn := "arn:aws:dynamodb:" + region + ":" + rights.Account + ":table/" + table
	return &answer{http.StatusBadRequest, "com.amazon.coral.service#AccessDeniedException", front.Denied(rights, "dynamodb:"+o.name, arn, why)}
}

// named returns the tables that the body names, which is valid JSON.
func (o operation) named(body []byte) ([]string, error) {
	switch o.means.tables {
	case one:
		return only(body, "TableName")
	case stream:
		return only(body, "StreamArn")
	case resource:
		return only(body, "ResourceArn")
	case batch:
		items, err := member(body, "RequestItems")
		if err != nil {
			return nil, err
		}
		var names []string
		err = members(items, func(name string, _ []byte) error {
			names = append(names, name)
			return nil
		})
		return names, shaped(err, "RequestItems")
	case transaction:
		items, err := member(body, "TransactItems")
		if err != nil {
			return nil, err
		}
		var names []string
		err = elements(items, func(item []byte) error {
			return members(item, func(_ string, action []byte) error {
				if string(action) == "null" {
					return nil
				}
				table, err := only(action, "TableName")
				names = append(names, table...)
				return err
			})
		})
		return names, shaped(err, "TransactItems")
	case nobody, none, all, statement, statements, iterator:
	}
	return nil, nil
}

// member returns a member of an object. One that is there twice might be another one to the store, and so is one in other
// letters.
func member(object []byte, wanted string) ([]byte, error) {
	var found []byte
	err := members(object, func(name string, value []byte) error {
		switch {
		case !strings.EqualFold(name, wanted):
			return nil
		case name != wanted || found != nil:
			return unreadable("The member " + wanted + " is given twice, or in other letters.")
		}
		found = value
		return nil
	})
	if err == nil && found == nil {
		err = &answer{http.StatusBadRequest, "com.amazon.coral.validate#ValidationException", "The parameter '" + wanted + "' is required but was not present in the request"}
	}
	return found, shaped(err, wanted)
}

// only returns a member that is a text.
func only(object []byte, wanted string) ([]string, error) {
	value, err := member(object, wanted)
	if err != nil {
		return nil, err
	}
	name, err := text(value)
	return []string{name}, shaped(err, wanted)
}

func shaped(err error, what string) error {
	if errors.Is(err, errShape) {
		return unreadable("Unexpected value of " + what + ".")
	}
	return err
}

func unreadable(message string) error {
	return &answer{http.StatusBadRequest, "com.amazon.coral.service#SerializationException", message}
}

var (
	tableName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,255}$`)
	// Of a table, and of its stream. What else may follow the table is not taken: stores differ in which part they look at.
	tableARN  = regexp.MustCompile(`^arn:aws[a-z-]*:dynamodb:[a-z0-9-]*:[0-9]*:table/([a-zA-Z0-9_.-]{1,255})$`)
	streamARN = regexp.MustCompile(`^arn:aws[a-z-]*:dynamodb:[a-z0-9-]*:[0-9]*:table/([a-zA-Z0-9_.-]{1,255})/stream/[a-zA-Z0-9_.:-]+$`)
)

// tableOf reads the name of a table, its ARN or, where that is what is named, the ARN of its stream.
func (o operation) tableOf(name string) (string, bool) {
	arn := tableARN
	if o.means.tables == stream {
		arn = streamARN
	} else if tableName.MatchString(name) && o.means.tables != resource {
		return name, true
	}
	m := arn.FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	return m[1], true
}
