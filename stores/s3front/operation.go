package s3front

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

// need is one thing that a caller must be allowed to do.
type need struct {
	// action is AWS's name of it, "s3:GetObject".
	action string
	scope  scope
	// bucket and key are what it is done with; key is a prefix in the scope of a list.
	bucket, key string
	access      functionaccess.Access
}

// scope says which of a caller's rights count.
type scope int

const (
	// object is one object.
	object scope = iota
	// list is all objects whose keys begin with a prefix.
	list
	// anything is the bucket as such: a right to anything in it will do.
	anything
	// allBuckets is what tells of every bucket.
	allBuckets
	// nobody: no function may, whatever functions.yml gives it.
	nobody
)

// operation is what a request asks for: needs, all of which must be met.
type operation struct {
	needs []need
	// reason says why not, where a need has the scope nobody.
	reason string
	// deletes is true when the objects are named by the body (DeleteObjects).
	deletes bool
}

// Reasons why no function may do something.
const (
	reasonBuckets = "buckets are made by resources.yml, and their settings by the box's operator"
	reasonOpen    = "objects are opened to others by functions.yml alone"
	reasonLock    = "locks are the operator's"
	reasonUnknown = "it is none of the operations that the box opens to functions"
)

// refused is an operation that no function may do.
func refused(action, bucket, key, reason string) operation {
	return operation{needs: []need{{action: action, scope: nobody, bucket: bucket, key: key}}, reason: reason}
}

var (
	// The rules of S3's bucket names, roughly.
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	// ids are those of versions and uploads: stores make names of files and keys of them.
	ids = regexp.MustCompile(`^[A-Za-z0-9_=~+-][A-Za-z0-9._=~+-]{0,999}$`)
)

// reserved are paths that S3 stores keep for themselves, the API of their administration among them; none is a bucket that
// a function may use.
var reserved = []string{"rustfs", "minio", "health", "profile", "iceberg"}

// Parameters that say which operation it is (S3 API reference), and those that only say how.
var (
	selectors = []string{
		"accelerate", "acl", "analytics", "attributes", "cors", "delete", "encryption", "intelligent-tiering", "inventory", "legal-hold",
		"lifecycle", "location", "logging", "metrics", "notification", "object-lock", "ownershipControls", "policy", "policyStatus",
		"publicAccessBlock", "replication", "requestPayment", "restore", "retention", "select", "session", "tagging", "torrent", "uploadId",
		"uploads", "versioning", "versions", "website",
	}
	plain = []string{
		"continuation-token", "delimiter", "encoding-type", "fetch-owner", "key-marker", "list-type", "marker", "max-keys", "max-parts",
		"max-uploads", "part-number-marker", "partNumber", "prefix", "response-cache-control", "response-content-disposition",
		"response-content-encoding", "response-content-language", "response-content-type", "response-expires", "select-type", "start-after",
		"upload-id-marker", "version-id-marker", "versionId", "x-id",
	}
)

// parse finds out what a request asks for. What it does not know it refuses: the store might know it.
func parse(r *http.Request) (operation, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return operation{}, invalid("The query could not be parsed.")
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/")
	if !ok {
		return operation{}, invalid("Couldn't parse the specified URI.")
	}
	bucket, key, _ := strings.Cut(path, "/")
	selector := ""
	for name, values := range query {
		switch {
		case len(values) != 1:
			return operation{}, invalid("The parameter " + name + " is given twice.")
		case slices.Contains(selectors, name):
			if selector != "" {
				return refused("s3:"+r.Method, bucket, key, reasonUnknown), nil
			}
			selector = name
		case slices.Contains(plain, name) || isHeader(name):
		default:
			return refused("s3:"+r.Method, bucket, key, reasonUnknown), nil
		}
	}
	if reason := headers(r.Header, query); reason != "" {
		return refused("s3:"+r.Method, bucket, key, reason), nil
	}
	if path == "" {
		if r.Method == http.MethodGet && selector == "" {
			return operation{needs: []need{{action: "s3:ListAllMyBuckets", scope: allBuckets}}}, nil
		}
		return refused("s3:"+r.Method, "", "", reasonUnknown), nil
	}
	if !bucketName.MatchString(bucket) || slices.Contains(reserved, bucket) {
		return operation{}, &s3Error{http.StatusBadRequest, "InvalidBucketName", "The specified bucket is not valid."}
	}
	for _, name := range []string{"versionId", "uploadId", "upload-id-marker", "version-id-marker"} {
		if id := query.Get(name); id != "" && !ids.MatchString(id) {
			return operation{}, &s3Error{http.StatusBadRequest, "InvalidArgument", "Invalid " + name + " specified"}
		}
	}
	if climbs(key) || climbs(query.Get("prefix")) {
		return operation{}, invalid("Keys with . or .. between slashes are not supported.")
	}
	if key == "" {
		return ofBucket(r, bucket, selector, query), nil
	}
	return ofObject(r, bucket, key, selector, query)
}

// ofBucket is an operation on a bucket.
func ofBucket(r *http.Request, bucket, selector string, query url.Values) operation {
	listing := func(action string) operation {
		return operation{needs: []need{{action: action, scope: list, bucket: bucket, key: query.Get("prefix"), access: functionaccess.Read}}}
	}
	known := func(action string) operation {
		return operation{needs: []need{{action: action, scope: anything, bucket: bucket}}}
	}
	if r.Header.Get(headerCopySource) != "" {
		return refused("s3:"+r.Method, bucket, "", reasonUnknown)
	}
	switch r.Method + " " + selector {
	case "HEAD ":
		return known("s3:ListBucket")
	case "GET location":
		return known("s3:GetBucketLocation")
	case "GET versioning":
		return known("s3:GetBucketVersioning")
	case "GET ":
		return listing("s3:ListBucket")
	case "GET versions":
		return listing("s3:ListBucketVersions")
	case "GET uploads":
		return listing("s3:ListBucketMultipartUploads")
	case "POST delete":
		return operation{needs: []need{{action: "s3:DeleteObject", scope: anything, bucket: bucket}}, deletes: true}
	case "PUT ":
		return refused("s3:CreateBucket", bucket, "", reasonBuckets)
	case "DELETE ":
		return refused("s3:DeleteBucket", bucket, "", reasonBuckets)
	case "PUT policy":
		return refused("s3:PutBucketPolicy", bucket, "", reasonBuckets)
	case "PUT acl":
		return refused("s3:PutBucketAcl", bucket, "", reasonBuckets)
	}
	if selector != "" && selector != "delete" {
		return refused("s3:"+r.Method+":"+selector, bucket, "", reasonBuckets)
	}
	return refused("s3:"+r.Method, bucket, "", reasonUnknown)
}

// ofObject is an operation on an object.
func ofObject(r *http.Request, bucket, key, selector string, query url.Values) (operation, error) {
	with := func(action string, access functionaccess.Access) operation {
		return operation{needs: []need{{action: action, bucket: bucket, key: key, access: access}}}
	}
	source := r.Header.Get(headerCopySource)
	part := query.Has("partNumber")
	what := r.Method + " " + selector
	if source != "" && what != "PUT " && what != "PUT uploadId" {
		return refused("s3:"+r.Method, bucket, key, reasonUnknown), nil
	}
	const read, write = functionaccess.Read, functionaccess.Write
	switch what {
	case "GET ", "HEAD ", "POST select":
		return with("s3:GetObject", read), nil
	case "GET tagging":
		return with("s3:GetObjectTagging", read), nil
	case "GET attributes":
		return with("s3:GetObjectAttributes", read), nil
	case "GET acl":
		return with("s3:GetObjectAcl", read), nil
	case "GET retention":
		return with("s3:GetObjectRetention", read), nil
	case "GET legal-hold":
		return with("s3:GetObjectLegalHold", read), nil
	case "GET uploadId":
		return with("s3:ListMultipartUploadParts", read), nil
	case "DELETE ":
		return with("s3:DeleteObject", write), nil
	case "DELETE tagging":
		return with("s3:DeleteObjectTagging", write), nil
	case "DELETE uploadId":
		return with("s3:AbortMultipartUpload", write), nil
	case "PUT tagging":
		return with("s3:PutObjectTagging", write), nil
	case "POST uploads", "POST uploadId":
		return with("s3:PutObject", write), nil
	case "PUT ", "PUT uploadId":
		// Either both are there or none: a store may not agree on what one alone means.
		if part != (selector == "uploadId") {
			return refused("s3:PutObject", bucket, key, reasonUnknown), nil
		}
		op := with("s3:PutObject", write)
		if source == "" {
			return op, nil
		}
		from, err := copySource(source)
		op.needs = append(op.needs, from)
		return op, err
	case "PUT acl":
		return refused("s3:PutObjectAcl", bucket, key, reasonOpen), nil
	case "PUT retention", "PUT legal-hold":
		return refused("s3:PutObjectRetention", bucket, key, reasonLock), nil
	}
	return refused("s3:"+r.Method, bucket, key, reasonUnknown), nil
}

const headerCopySource = "X-Amz-Copy-Source"

// copySource reads "/bucket/key?versionId=...", URL-encoded with or without the first slash.
func copySource(text string) (need, error) {
	bad := &s3Error{http.StatusBadRequest, "InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"}
	// Stores take a plus sign for a blank, or for itself: what that means must not depend on them.
	decoded, err := url.QueryUnescape(strings.TrimPrefix(text, "/"))
	same, err2 := url.PathUnescape(strings.TrimPrefix(text, "/"))
	if err != nil || err2 != nil || decoded != same {
		return need{}, bad
	}
	source, version, versioned := strings.Cut(decoded, "?versionId=")
	bucket, key, _ := strings.Cut(source, "/")
	if !bucketName.MatchString(bucket) || slices.Contains(reserved, bucket) || key == "" || climbs(key) || versioned && !ids.MatchString(version) {
		return need{}, bad
	}
	return need{action: "s3:GetObject", bucket: bucket, key: key, access: functionaccess.Read}, nil
}

// headers says why a request may not have the headers that it has, or parameters that stand for them; empty when it may.
func headers(header http.Header, query url.Values) string {
	for name, values := range header {
		for _, value := range values {
			if reason := headerReason(strings.ToLower(name), value); reason != "" {
				return reason
			}
		}
		if len(values) > 1 && isHeader(name) {
			return reasonUnknown
		}
	}
	for name, values := range query {
		lower := strings.ToLower(name)
		if reason := headerReason(lower, values[0]); reason != "" {
			return reason
		}
		if strings.HasPrefix(lower, "x-amz-copy-source") {
			return reasonUnknown
		}
	}
	return ""
}

func headerReason(name, value string) string {
	switch {
	case name == "x-amz-acl":
		switch strings.ToLower(value) {
		case "", "private", "bucket-owner-read", "bucket-owner-full-control":
			return ""
		}
		return reasonOpen
	case strings.HasPrefix(name, "x-amz-grant-"):
		return reasonOpen
	case strings.HasPrefix(name, "x-amz-object-lock-"), name == "x-amz-bypass-governance-retention":
		return reasonLock
	case strings.HasPrefix(name, "x-minio-"), strings.HasPrefix(name, "x-rustfs-"), strings.HasPrefix(name, "x-amz-meta-snowball-"),
		name == "x-amz-write-offset-bytes", name == "x-http-method-override":
		// The first ones are between stores, or unpack one object to many.
		return reasonUnknown
	}
	return ""
}

// isHeader says whether a name is one of the headers of AWS, which presigned requests have as parameters.
func isHeader(name string) bool { return len(name) > 6 && strings.EqualFold(name[:6], "x-amz-") }

// climbs says whether a key, or a prefix of keys, would be another one as the path of a file.
func climbs(key string) bool {
	last := ""
	for part := range strings.SplitSeq(key, "/") {
		if last == "." || last == ".." {
			return true
		}
		last = part
	}
	return last == "." || last == ".."
}

func invalid(message string) error { return &s3Error{http.StatusBadRequest, "InvalidURI", message} }
