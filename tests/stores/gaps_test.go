package stores

// What the native way's stand-ins cannot do, by the name of the check. A production store has no entry here: what
// fails against it is a defect of that store or of the contract.

// versitygwGaps are those of the S3 stand-in.
var versitygwGaps = map[string]string{
	"lifecycle rule is kept": "versitygw v1.8.0 answers 501 to lifecycle configurations",
	"unknown key is refused": "versitygw v1.8.0 refuses with 404 XAdminUserNotFound instead of 403 InvalidAccessKeyId",
}

// dynoxideGaps are those of the DynamoDB stand-in, with our own front (signatures) and sweeper (TTL) around it.
var dynoxideGaps = map[string]string{}
