package gateway

// StoreAccess is what a function may do with its own keys at the box's stores; nothing by default.
type StoreAccess struct {
	S3     []ObjectAccess
	Tables []TableAccess
}

// ObjectAccess opens objects of S3 to a function.
type ObjectAccess struct {
	// Bucket is a name, or a pattern in which "*" stands for any characters.
	Bucket string
	// Prefix begins the keys of the objects; empty is all of the bucket.
	Prefix string
	// Write is true when the function may change them too, and not read only.
	Write bool
}

// TableAccess opens a DynamoDB table to a function.
type TableAccess struct {
	// Table is a name, or a pattern in which "*" stands for any characters.
	Table string
	// Write is true when the function may change items too, and not read only.
	Write bool
}
