package gateway

// Resources is what resources.yml declares, checked: tables and buckets that the box makes in its stores.
type Resources struct {
	Tables  []Table
	Buckets []Bucket
}

// Table is a DynamoDB table.
type Table struct {
	Name string
	Key  TableKey
	// GlobalIndexes and LocalIndexes in the order of the file.
	GlobalIndexes []Index
	LocalIndexes  []Index
	// Stream is the view type of the table's stream, such as NEW_AND_OLD_IMAGES; empty for no stream.
	Stream string
	// TTLAttribute holds the time in Unix seconds at which an item expires; empty for items that stay.
	TTLAttribute string
	// Throughput is nil for PAY_PER_REQUEST.
	Throughput *Throughput
}

// TableKey is a primary key, of a table or an index.
type TableKey struct {
	Hash KeyAttribute
	// Range is nil where the hash key alone is the key.
	Range *KeyAttribute
}

// KeyAttribute is an attribute of a key with its type: S, N or B.
type KeyAttribute struct {
	Name string
	Type string
}

// Index is a secondary index.
type Index struct {
	Name string
	Key  TableKey
	// Projection is ALL, KEYS_ONLY or INCLUDE.
	Projection string
	// Include are the attributes beside the keys, for INCLUDE.
	Include []string
	// Throughput of a global index; nil for PAY_PER_REQUEST, and for local indexes.
	Throughput *Throughput
}

// Throughput is provisioned capacity, units a second.
type Throughput struct {
	Read, Write int
}

// Bucket is an S3 bucket.
type Bucket struct {
	Name string
	// Versioning keeps old versions of objects.
	Versioning bool
}
