package stores

// What the native way's stand-ins cannot do, by the name of the check. A production store has no entry here: what
// fails against it is a defect of that store or of the contract.

// versitygwGaps are those of the S3 stand-in.
var versitygwGaps = map[string]string{
	"unknown key is refused": "versitygw v1.8.0 refuses with 404 XAdminUserNotFound instead of 403 InvalidAccessKeyId",
}

// dynoxideGaps are those of the DynamoDB stand-in, with our own front (signatures) and sweeper (TTL) around it.
var dynoxideGaps = map[string]string{}

// operators is why a function's key may not do something, whatever functions.yml gives it.
const operators = "buckets and tables are the operator's: functions work with what is in them"

// notForFunctionsS3 and notForFunctionsDynamoDB are what functions may not do at the stores, by the name of the check.
var (
	notForFunctionsS3 = map[string]string{
		"bucket made twice is refused": operators, "bucket with objects is not deleted": operators,
		"empty bucket is deleted": operators, "bucket tags are kept": operators, "lifecycle rule is kept": operators,
		"old versions can be read and a delete undone": operators,
	}
	notForFunctionsDynamoDB = map[string]string{
		"table made twice is refused": operators, "table with a key that is not defined is refused": operators, "deleted table is gone": operators,
		"table tags are kept": operators, "index is added to a table that has items": operators, "expired item goes and a fresh one stays": operators,
	}
)
