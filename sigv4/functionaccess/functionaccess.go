// Package functionaccess says what functions may do at the box's stores. The gateway writes it into a file, by what
// functions.yml says; what stands in front of the stores reads it, and asks Rights.
package functionaccess

import (
	"slices"
	"strings"
)

// Access is what may be done with a bucket or a table.
type Access string

// Kinds of access. Write includes Read.
const (
	Read  Access = "read"
	Write Access = "write"
)

// allows says whether a permits what wanted asks for.
func (a Access) allows(wanted Access) bool {
	return a == Write || a == Read && wanted == Read
}

// All is the pattern of every name.
const All = "*"

// Objects are objects of S3 that a function may use.
type Objects struct {
	// Bucket is a name or a pattern: "*" stands for any characters.
	Bucket string `json:"bucket"`
	// Prefix begins the keys of the objects; empty is all of the bucket.
	Prefix string `json:"prefix,omitempty"`
	Access Access `json:"access"`
}

// Table is a DynamoDB table that a function may use, with its indexes and its stream.
type Table struct {
	// Table is a name or a pattern: "*" stands for any characters.
	Table  string `json:"table"`
	Access Access `json:"access"`
}

// Function is a function and what it may do.
type Function struct {
	Name   string    `json:"name"`
	S3     []Objects `json:"s3,omitempty"`
	Tables []Table   `json:"tables,omitempty"`
}

// List is what all functions may do: the content of the file.
type List struct {
	// Account is the box's AWS account, for the ARNs of answers.
	Account string `json:"account"`
	// CodeBuckets hold code or layers of functions. No function may write there, whatever it was given.
	CodeBuckets []string `json:"code_buckets"`
	// Functions by the ids of their access keys. A key that is not here is nobody's.
	Functions map[string]Function `json:"functions"`
}

// Rights are what one function may do.
type Rights struct {
	Function
	Account     string
	codeBuckets []string
}

// Rights returns those of the function with an access key, false when there is no such function.
func (l *List) Rights(accessKeyID string) (Rights, bool) {
	f, ok := l.Functions[accessKeyID]
	return Rights{Function: f, Account: l.Account, codeBuckets: l.CodeBuckets}, ok
}

// HoldsCode says whether a bucket holds code or layers of functions.
func (r Rights) HoldsCode(bucket string) bool { return slices.Contains(r.codeBuckets, bucket) }

// Object says whether the function may use an object, or list the objects whose keys begin with key.
func (r Rights) Object(bucket, key string, wanted Access) bool {
	if wanted != Read && r.HoldsCode(bucket) {
		return false
	}
	for _, o := range r.S3 {
		if o.Access.allows(wanted) && Matches(o.Bucket, bucket) && strings.HasPrefix(key, o.Prefix) {
			return true
		}
	}
	return false
}

// Bucket says whether the function may use anything in a bucket, and so may know that it is there.
func (r Rights) Bucket(bucket string) bool {
	return slices.ContainsFunc(r.S3, func(o Objects) bool { return Matches(o.Bucket, bucket) })
}

// AllBuckets says whether the function may read all buckets.
func (r Rights) AllBuckets() bool {
	return slices.ContainsFunc(r.S3, func(o Objects) bool { return o.Bucket == All && o.Prefix == "" && o.Access.allows(Read) })
}

// Items says whether the function may use a table.
func (r Rights) Items(table string, wanted Access) bool {
	return slices.ContainsFunc(r.Tables, func(t Table) bool { return t.Access.allows(wanted) && Matches(t.Table, table) })
}

// AllTables says whether the function may use all tables.
func (r Rights) AllTables(wanted Access) bool {
	return slices.ContainsFunc(r.Tables, func(t Table) bool { return t.Table == All && t.Access.allows(wanted) })
}

// Matches says whether a name fits a pattern, in which "*" stands for any characters, none too.
func Matches(pattern, name string) bool {
	first, rest, any := strings.Cut(pattern, All)
	if !any {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, first)
	if !ok {
		return false
	}
	for {
		part, more, any := strings.Cut(rest, All)
		if !any {
			return strings.HasSuffix(name, part)
		}
		// The first place will do: what follows has the most room then.
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name, rest = name[at+len(part):], more
	}
}
