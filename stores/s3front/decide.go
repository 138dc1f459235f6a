package s3front

import (
	"net/http"

	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/stores/front"
)

// decide says whether a function with some rights may do an operation: nil, or the answer.
func decide(op operation, rights functionaccess.Rights) error {
	for _, n := range op.needs {
		var why string
		switch {
		case n.scope == nobody:
			why = op.reason
		case n.scope == allBuckets && rights.AllBuckets(), n.scope == anything && rights.Bucket(n.bucket),
			n.scope <= list && rights.Object(n.bucket, n.key, n.access):
			continue
		case n.access == functionaccess.Write && rights.HoldsCode(n.bucket):
			why = "the bucket holds code of functions, and no function may write there"
		default:
			why = "functions.yml gives function " + rights.Name + " no such access (s3)"
		}
		return &s3Error{http.StatusForbidden, "AccessDenied", front.Denied(rights, n.action, n.resource(), why)}
	}
	return nil
}

// resource is the ARN of what is needed.
func (n need) resource() string {
	switch {
	case n.bucket == "":
		return "*"
	case n.scope == object && n.key != "" || n.scope == nobody && n.key != "":
		return "arn:aws:s3:::" + n.bucket + "/" + n.key
	}
	return "arn:aws:s3:::" + n.bucket
}
