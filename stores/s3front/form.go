package s3front

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/textproto"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/sigv4/sigv2"
)

// maxForm bounds what a form has before its file, in bytes (S3 user guide, "Browser-based uploads using POST": 20 KB, without the
// file), maxFields how many fields that are.
const maxForm, maxFields = 64 << 10, 200

// Fields of a form that sign its policy. The front puts the store's own in their place.
const (
	fieldPolicy, fieldKey, fieldFile = "policy", "key", "file"
	fieldV2Key, fieldV2Signature     = "awsaccesskeyid", "signature"
	fieldAlgorithm, fieldCredential  = "x-amz-algorithm", "x-amz-credential"
	fieldDate, fieldSignature        = "x-amz-date", "x-amz-signature"
	fieldToken                       = "x-amz-security-token"
	algorithmV4                      = "AWS4-HMAC-SHA256"
	timeFormat                       = "20060102T150405Z"
)

var signatureFields = map[string]bool{
	fieldPolicy: true, fieldV2Key: true, fieldV2Signature: true, fieldAlgorithm: true, fieldCredential: true, fieldDate: true, fieldSignature: true, fieldToken: true,
}

var fieldName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

// field is one of a form, before its file.
type field struct{ name, value string }

// form is a form that uploads an object (POST Object), up to the data of its file.
type form struct {
	boundary string
	fields   []field
	// filename and contentType are the file's.
	filename, contentType string
	// read is all that was read, rest what of it is the file's.
	read, rest []byte
}

// isForm says whether a request uploads an object by a form. It is signed by fields of the form.
func isForm(r *http.Request) bool {
	if r.Method != http.MethodPost || len(r.Header["Authorization"]) > 0 || r.URL.RawQuery != "" {
		return false
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "multipart/form-data"
}

func (f *form) get(name string) string {
	for _, field := range f.fields {
		if strings.ToLower(field.name) == name {
			return field.value
		}
	}
	return ""
}

// header is the field that stands for a header of AWS (S3 API reference, POST Object).
func (f *form) header(name string) string {
	if name = strings.ToLower(name); name == "x-amz-acl" {
		name = "acl"
	}
	return f.get(name)
}

// accessKeyID is who says to have signed the form.
func (f *form) accessKeyID() string {
	if id := f.get(fieldV2Key); id != "" {
		return id
	}
	id, _, _ := strings.Cut(f.get(fieldCredential), "/")
	return id
}

func badForm(message string) error {
	return &s3Error{http.StatusBadRequest, "MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data. " + message}
}

func badPolicy(message string) error {
	return &s3Error{http.StatusForbidden, "AccessDenied", "Invalid according to Policy: " + message}
}

// readForm reads a form up to the data of its file. On an error what was read is lost.
func readForm(r *http.Request, claim *budget.Claim) (*form, error) {
	_, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	boundary := parameters["boundary"]
	if err != nil || boundary == "" || len(boundary) > 70 || strings.ContainsAny(boundary, "\r\n\"") {
		return nil, badForm("It has no boundary.")
	}
	if r.ContentLength < 0 {
		return nil, &s3Error{http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header."}
	}
	if err := claim.Grow(2 * maxForm); err != nil {
		return nil, err
	}
	f := &form{boundary: boundary}
	buffer := make([]byte, 0, 8<<10)
	for {
		done, err := f.parse(buffer)
		if done || err != nil {
			return f, err
		}
		if len(buffer) >= maxForm {
			return nil, &s3Error{http.StatusBadRequest, "MaxPostPreDataLengthExceeded", "Your POST request fields preceding the upload file were too large."}
		}
		if len(buffer) == cap(buffer) {
			buffer = append(make([]byte, 0, min(2*cap(buffer), maxForm)), buffer...)
		}
		n, err := r.Body.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		switch {
		case errors.Is(err, io.EOF) && n > 0:
		case errors.Is(err, io.EOF):
			return nil, &s3Error{http.StatusBadRequest, "InvalidArgument", "POST requires exactly one file upload per request."}
		case err != nil:
			return nil, err
		}
	}
}

// parse reads a form's beginning, and says whether that was enough to reach the data of its file.
func (f *form) parse(data []byte) (bool, error) {
	f.fields, f.read = nil, data
	delimiter := []byte("--" + f.boundary)
	rest, ok := bytes.CutPrefix(data, delimiter)
	if !ok {
		if len(data) >= len(delimiter) {
			return false, badForm("It does not begin with its boundary.")
		}
		return false, nil
	}
	seen := map[string]bool{}
	for {
		if rest, ok = bytes.CutPrefix(rest, []byte("\r\n")); !ok {
			if len(rest) >= 2 {
				return false, &s3Error{http.StatusBadRequest, "InvalidArgument", "POST requires exactly one file upload per request."}
			}
			return false, nil
		}
		head, body, ok := bytes.Cut(rest, []byte("\r\n\r\n"))
		if !ok {
			return false, nil
		}
		name, filename, contentType, err := partHead(head)
		if err != nil {
			return false, err
		}
		lower := strings.ToLower(name)
		if seen[lower] || len(f.fields) >= maxFields {
			return false, badForm("A field is given twice, or there are too many.")
		}
		seen[lower] = true
		if lower == fieldFile {
			f.filename, f.contentType, f.rest = filename, contentType, body
			return true, nil
		}
		value, after, ok := bytes.Cut(body, append([]byte("\r\n"), delimiter...))
		if !ok {
			return false, nil
		}
		f.fields = append(f.fields, field{name, string(value)})
		rest = after
	}
}

// partHead reads the header of one part.
func partHead(head []byte) (name, filename, contentType string, err error) {
	header := textproto.MIMEHeader{}
	for line := range strings.SplitSeq(string(head), "\r\n") {
		key, value, ok := strings.Cut(line, ":")
		if !ok || strings.ContainsAny(line, "\r\n\x00") {
			return "", "", "", badForm("A part has no valid header.")
		}
		header.Add(strings.TrimSpace(key), strings.TrimSpace(value))
	}
	kind, parameters, err := mime.ParseMediaType(header.Get("Content-Disposition"))
	if err != nil || kind != "form-data" || len(header["Content-Disposition"]) != 1 || !fieldName.MatchString(parameters["name"]) {
		return "", "", "", badForm("A part has no name.")
	}
	return parameters["name"], parameters["filename"], header.Get("Content-Type"), nil
}

// policyDocument is a form's policy.
type policyDocument struct {
	Expiration string            `json:"expiration"`
	Conditions []json.RawMessage `json:"conditions"`
}

// verifyForm checks a form's signature.
func verifyForm(f *form, keys sigv4.Keys, now time.Time) error {
	policy := f.get(fieldPolicy)
	secret, known := keys(f.accessKeyID())
	if !known {
		return &sigv4.Error{Reason: sigv4.UnknownKey, Code: "UnrecognizedClientException", Message: "The AWS Access Key Id you provided does not exist in our records."}
	}
	if (f.get(fieldV2Key) != "" || f.get(fieldV2Signature) != "") && (f.get(fieldAlgorithm) != "" || f.get(fieldCredential) != "" || f.get(fieldSignature) != "") {
		return badForm("It is signed in two ways.")
	}
	if f.get(fieldV2Key) != "" {
		if !sigv2.VerifyPolicy(secret, policy, f.get(fieldV2Signature)) {
			return errSignature
		}
		return nil
	}
	scope := strings.Split(f.get(fieldCredential), "/")
	date, err := time.Parse(timeFormat, f.get(fieldDate))
	if f.get(fieldAlgorithm) != algorithmV4 || err != nil || len(scope) != 5 || scope[3] != service || scope[4] != "aws4_request" || scope[1] != date.Format("20060102") {
		return &s3Error{http.StatusBadRequest, "AuthorizationQueryParametersError", "The fields x-amz-algorithm, x-amz-credential and x-amz-date of the form are missing or malformed."}
	}
	if date.After(now.Add(sigv4.MaxSkew)) || date.Add(maxPolicy).Before(now) {
		return badPolicy("Policy expired.")
	}
	if !(sigv4.Scope{Date: scope[1], Region: scope[2], Service: scope[3]}).Verify(secret, policy, f.get(fieldSignature)) {
		return errSignature
	}
	return nil
}

// maxPolicy is how long a signing key of version 4 is valid (AWS: seven days).
const maxPolicy = 7 * 24 * time.Hour

var errSignature = &s3Error{http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method."}

// resign puts the store's signature in place of the form's, and the name of the file into its key. The other conditions of the
// policy stay, for the store to look at.
func (f *form) resign(store sigv4.Credentials, region string, now time.Time) error {
	text, err := base64.StdEncoding.DecodeString(f.get(fieldPolicy))
	var policy policyDocument
	if err != nil || json.Unmarshal(text, &policy) != nil {
		return &s3Error{http.StatusBadRequest, "InvalidPolicyDocument", "The content of the form does not meet the conditions specified in the policy document."}
	}
	expires, err := time.Parse(time.RFC3339, policy.Expiration)
	if err != nil {
		return &s3Error{http.StatusBadRequest, "InvalidPolicyDocument", "Invalid Policy: Invalid 'expiration' value: '" + policy.Expiration + "'"}
	}
	if !expires.After(now) {
		return badPolicy("Policy expired.")
	}
	out := policyDocument{Expiration: policy.Expiration, Conditions: []json.RawMessage{}}
	for _, condition := range policy.Conditions {
		name, exact, value, err := conditionOn(condition)
		if err != nil {
			return &s3Error{http.StatusBadRequest, "InvalidPolicyDocument", "Invalid Policy: a condition cannot be read."}
		}
		if !signatureFields[name] {
			out.Conditions = append(out.Conditions, condition)
			continue
		}
		if given := f.get(name); exact && given != value || !exact && !strings.HasPrefix(given, value) {
			return badPolicy("Policy Condition failed: " + string(condition))
		}
	}
	scope := sigv4.Scope{Date: now.UTC().Format("20060102"), Region: region, Service: service}
	own := []field{{fieldAlgorithm, algorithmV4}, {fieldCredential, store.AccessKeyID + "/" + scope.String()}, {fieldDate, now.UTC().Format(timeFormat)}}
	for _, o := range own {
		condition, _ := json.Marshal(map[string]string{o.name: o.value})
		out.Conditions = append(out.Conditions, condition)
	}
	signed, err := json.Marshal(out)
	if err != nil {
		return err
	}
	encoded := base64.StdEncoding.EncodeToString(signed)
	var fields []field
	for _, given := range f.fields {
		lower := strings.ToLower(given.name)
		if lower == fieldKey {
			given.value = f.key()
		}
		if !signatureFields[lower] {
			fields = append(fields, given)
		}
	}
	fields = append(fields, own...)
	fields = append(fields, field{fieldPolicy, encoded}, field{fieldSignature, scope.Sign(store.SecretAccessKey, encoded)})
	f.fields = fields
	return nil
}

// conditionOn reads which field a condition is on: {"field": "value"} or ["eq", "$field", "value"]. One on the length of the
// file is on no field.
func conditionOn(condition json.RawMessage) (name string, exact bool, value string, err error) {
	var object map[string]string
	if json.Unmarshal(condition, &object) == nil {
		if len(object) != 1 {
			return "", false, "", errUnsupported
		}
		for name, value := range object {
			return strings.ToLower(name), true, value, nil
		}
	}
	var list []any
	if err := json.Unmarshal(condition, &list); err != nil || len(list) != 3 {
		return "", false, "", errUnsupported
	}
	operator, _ := list[0].(string)
	if strings.EqualFold(operator, "content-length-range") {
		return "", false, "", nil
	}
	name, ok := list[1].(string)
	value, ok2 := list[2].(string)
	if !ok || !ok2 || !strings.HasPrefix(name, "$") {
		return "", false, "", errUnsupported
	}
	return strings.ToLower(name[1:]), strings.EqualFold(operator, "eq"), value, nil
}

// key is the object's, with the name of the file in it (S3 user guide: the variable ${filename} is replaced by it).
func (f *form) key() string {
	name := path.Base(strings.ReplaceAll(f.filename, `\`, "/"))
	if f.filename == "" {
		name = ""
	}
	return strings.ReplaceAll(f.get(fieldKey), "${filename}", name)
}

// head is the form up to the data of its file, written anew: no parser can read it in another way.
func (f *form) head() []byte {
	var b bytes.Buffer
	for _, field := range f.fields {
		fmt.Fprintf(&b, "--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n", f.boundary, field.name, field.value)
	}
	filename := strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r == '\\' || r == 0x7f {
			return '_'
		}
		return r
	}, f.filename)
	fmt.Fprintf(&b, "--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\"\r\n", f.boundary, filename)
	if f.contentType != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", f.contentType)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// decide says whether a function may upload by the form.
func (f *form) decide(bucket string, rights functionaccess.Rights) error {
	key := f.key()
	if key == "" || climbs(key) {
		return invalid("Keys with . or .. between slashes are not supported, and a form needs a key.")
	}
	op := operation{needs: []need{{action: "s3:PutObject", bucket: bucket, key: key, access: functionaccess.Write}}}
	for _, field := range f.fields {
		name := strings.ToLower(field.name)
		if name == "acl" {
			name = "x-amz-acl"
		}
		if reason := headerReason(name, field.value); reason != "" {
			op = refused("s3:PutObject", bucket, key, reason)
		}
	}
	return decide(op, rights)
}

// upload checks a request that uploads by a form, and prepares it for the store. A form of somebody whom the front does not know
// is passed on as it is, for the store to decide.
func (h *handler) upload(r *http.Request, bucket string, claim *budget.Claim) error {
	length := r.ContentLength
	f, err := readForm(r, claim)
	if err != nil {
		return err
	}
	body := r.Body
	restore := func(head []byte) {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), body), body}
	}
	id := f.accessKeyID()
	callers := h.opts.Callers
	if callers.FromFunctions(r) {
		switch {
		case callers.Known(id):
			return errKnown
		case id == "":
			return &sigv4.Error{Reason: sigv4.Missing, Code: "MissingAuthenticationTokenException", Message: "Access Denied."}
		}
	}
	if _, known := callers.Keys(id); !known && !functionkeys.IsID(id) {
		restore(f.read)
		return nil
	}
	now := time.Now()
	if err := verifyForm(f, callers.Keys, now); err != nil {
		return err
	}
	if !bucketName.MatchString(bucket) || len(bucket) > 63 {
		return &s3Error{http.StatusBadRequest, "InvalidBucketName", "The specified bucket is not valid."}
	}
	if functionkeys.IsID(id) {
		rights, ok := callers.Rights(id)
		if !ok {
			return errGone
		}
		if err := f.decide(bucket, rights); err != nil {
			return err
		}
	}
	if h.opts.Ignorant {
		if err := h.unkept(f.header); err != nil {
			return err
		}
	}
	if err := f.resign(callers.Store, h.opts.region(), now); err != nil {
		return err
	}
	head := f.head()
	r.ContentLength = length - int64(len(f.read)-len(f.rest)) + int64(len(head))
	r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	restore(append(head, f.rest...))
	return nil
}
