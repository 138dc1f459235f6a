package s3front

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/edge-serverless-box/esb/guard/budget"
)

const (
	headerAttributes = "X-Amz-Object-Attributes"
	headerTagging    = "X-Amz-Tagging"
	// maxTags bounds the body of PutObjectTagging and PutBucketTagging in bytes: 50 tags of 128 and 256 characters (S3 user
	// guide, "Categorizing your storage using tags"; "Using cost allocation S3 bucket tags").
	maxTags = 256 << 10
)

// special says whether the front has to change a request, or answers it itself where the store would not do it as S3 does. host
// is the bucket that the host names.
func (h *handler) special(r *http.Request, query url.Values, host string) (serve http.HandlerFunc, mend bool) {
	bucket, key := split(r.URL, host)
	switch {
	case h.opts.Lifecycle != nil && query.Has("lifecycle") && bucket != "" && key == "":
		return h.lifecycle, true
	case r.Method == http.MethodPut && r.Header.Get(headerCopySource) != "" && key != "" && !query.Has("uploadId") &&
		(r.Header.Get("If-Match") != "" || r.Header.Get("If-None-Match") != ""):
		return h.copyObject, true
	case r.Method == http.MethodGet && query.Has("attributes"):
		attributes := r.Header[headerAttributes]
		return nil, len(attributes) > 1 || len(attributes) == 1 && strings.Contains(attributes[0], " ") || h.wantsParts(r)
	case h.lists(r, key, query):
		return nil, true
	}
	return nil, false
}

// split returns the bucket and the key that a request names.
func split(u *url.URL, host string) (bucket, key string) {
	path := strings.TrimPrefix(u.Path, "/")
	if host != "" {
		return host, path
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

// oneList makes one list of attributes without spaces of what SDKs send: "ETag, ObjectSize", or a header each. versitygw
// (v1.8.0) looks for an attribute " ObjectSize", and at one header.
func oneList(header http.Header) {
	if values := header[headerAttributes]; len(values) > 0 {
		header[headerAttributes] = []string{strings.ReplaceAll(strings.Join(values, ","), " ", "")}
	}
}

// wantsParts says whether a request asks for the number of an object's parts, which versitygw (v1.8.0) never tells there.
func (h *handler) wantsParts(r *http.Request) bool {
	return h.opts.Ignorant && strings.Contains(strings.Join(r.Header[headerAttributes], ","), "ObjectParts")
}

// withParts adds the number of an object's parts to its attributes (S3 API reference, GetObjectAttributes: the parts themselves
// are told of objects with a checksum of each part only).
func (h *handler) withParts(r *http.Response, c *checked) error {
	bucket, key := split(r.Request.URL, "")
	query := "partNumber=1"
	if version := r.Request.URL.Query().Get("versionId"); version != "" {
		query += "&" + versionQuery(version)
	}
	head, err := asker{h: h, region: c.signature.Scope.Region, host: r.Request.Host}.do(r.Request.Context(), http.MethodHead, bucket, key, query, http.Header{}, nil, 0)
	if err != nil {
		return err
	}
	_ = head.Body.Close()
	count, _ := strconv.Atoi(head.Header.Get("X-Amz-Mp-Parts-Count"))
	if count == 0 {
		return nil // it was not uploaded in parts
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer))
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return err
	}
	end := []byte("</GetObjectAttributesResponse>")
	if data = bytes.Replace(data, []byte("<GetObjectAttributesResponse/>"), append([]byte("<GetObjectAttributesResponse>"), end...), 1); bytes.Count(data, end) != 1 {
		return errors.New("the answer to GetObjectAttributes is none")
	}
	data = bytes.Replace(data, end, append([]byte("<ObjectParts><PartsCount>"+strconv.Itoa(count)+"</PartsCount></ObjectParts>"), end...), 1)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	r.Header.Set("Content-Length", strconv.Itoa(len(data)))
	return nil
}

func notImplemented(message string) error {
	return &s3Error{http.StatusNotImplemented, "NotImplemented", message}
}

// ignored refuses what versitygw (v1.8.0) answers as if it had done it. A header may stand in the query of a link as well.
func (h *handler) ignored(r *http.Request, query url.Values) error {
	given := func(name string) string {
		if value := r.Header.Get(name); value != "" {
			return value
		}
		for parameter, values := range query {
			if strings.EqualFold(parameter, name) && len(values) > 0 {
				return values[0]
			}
		}
		return ""
	}
	switch {
	case r.Method == http.MethodPut && query.Has("website"):
		return notImplemented("Buckets are not served as websites here.")
	case query.Has("select") && query.Has("select-type"):
		return notImplemented("SelectObjectContent is not implemented.")
	case query.Has("torrent"):
		return notImplemented("GetObjectTorrent is not implemented.")
	}
	if r.Method != http.MethodPut && r.Method != http.MethodPost {
		return nil
	}
	if grants(r, query) {
		return errACL
	}
	return h.unkept(given)
}

var errACL = &s3Error{http.StatusBadRequest, "AccessControlListNotSupported", "The bucket does not allow ACLs"}

// unkept refuses what a new object is to be and versitygw (v1.8.0) does not make it.
func (h *handler) unkept(given func(name string) string) error {
	switch given("X-Amz-Acl") {
	case "", "private", "bucket-owner-full-control", "bucket-owner-read":
	default:
		return errACL
	}
	sse := given(headerEncryption)
	if sse != "" && sse != ownKeys || given(headerEncryption+"-Customer-Algorithm") != "" {
		return notImplemented("Encryption with keys of a client or of a key management service is not implemented.")
	}
	h.encryptionAsked(sse)
	if class := given("X-Amz-Storage-Class"); class != "" && class != "STANDARD" && class != "REDUCED_REDUNDANCY" {
		return &s3Error{http.StatusBadRequest, "InvalidStorageClass", "The storage class you specified is not valid"}
	}
	return nil
}

func grants(r *http.Request, query url.Values) bool {
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-Grant-") {
			return true
		}
	}
	for name := range query {
		if len(name) > 12 && strings.EqualFold(name[:12], "x-amz-grant-") {
			return true
		}
	}
	return false
}

// errSystemTag is S3's answer (S3 API reference, PutObjectTagging; the message is AWS's).
var errSystemTag = &s3Error{http.StatusBadRequest, "InvalidTag", "System tags cannot be added/updated by requester"}

// systemTags refuses tags that begin with "aws:", which are AWS's own. Of the body of a request that sets tags, what was read is
// put back.
func systemTags(r *http.Request, query url.Values, claim *budget.Claim) error {
	given := r.Header.Get(headerTagging)
	for name, values := range query {
		if strings.EqualFold(name, headerTagging) {
			given += "&" + strings.Join(values, "&")
		}
	}
	if err := headerTags(given); err != nil {
		return err
	}
	if r.Method != http.MethodPut || !query.Has("tagging") || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if err := claim.Grow(maxTags); err != nil {
		return err
	}
	body := r.Body
	data, err := io.ReadAll(io.LimitReader(body, maxTags))
	if err != nil {
		return err
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(data), body), body}
	if systemTag(data) {
		return errSystemTag
	}
	return nil
}

// Limits of an object's tags (S3 user guide, "Categorizing your storage using tags").
const maxObjectTags, maxTagKey, maxTagValue = 10, 128, 256

// headerTags checks tags as the header of a PutObject has them, which versitygw (v1.8.0) does not count. The answers are AWS's.
func headerTags(text string) error {
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		switch {
		case err != nil || err2 != nil || seen[name]:
			return &s3Error{http.StatusBadRequest, "InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates."}
		case strings.HasPrefix(strings.ToLower(name), "aws:"):
			return errSystemTag
		case name == "" || utf8.RuneCountInString(name) > maxTagKey:
			return &s3Error{http.StatusBadRequest, "InvalidTag", "The TagKey you have provided is invalid"}
		case utf8.RuneCountInString(value) > maxTagValue:
			return &s3Error{http.StatusBadRequest, "InvalidTag", "The TagValue you have provided is invalid"}
		}
		if seen[name] = true; len(seen) > maxObjectTags {
			return &s3Error{http.StatusBadRequest, "BadRequest", "Object tags cannot be greater than 10"}
		}
	}
	return nil
}

// systemTag says whether there is such a tag in a body, which may also come in chunks.
func systemTag(data []byte) bool {
	if at := bytes.IndexByte(data, '<'); at > 0 {
		data = data[at:]
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	inKey := false
	for {
		token, err := d.RawToken()
		if err != nil {
			return false
		}
		switch t := token.(type) {
		case xml.StartElement:
			inKey = t.Name.Local == "Key"
		case xml.EndElement:
			inKey = false
		case xml.CharData:
			if inKey && strings.HasPrefix(strings.ToLower(string(t)), "aws:") {
				return true
			}
		}
	}
}

// answered completes an answer of the store: what of DeleteObjects was refused here is told, and the rules of a bucket that was
// deleted are forgotten.
func (h *handler) answered(r *http.Response) error {
	c, ok := r.Request.Context().Value(contextKey{}).(*checked)
	if !ok {
		return nil
	}
	if bucket, key := split(r.Request.URL, ""); h.opts.Lifecycle != nil && r.Request.Method == http.MethodDelete && key == "" && r.Request.URL.RawQuery == "" && r.StatusCode/100 == 2 {
		if err := h.opts.Lifecycle.Delete(bucket); err != nil {
			h.opts.Logger.Error("the lifecycle rules of a bucket that was deleted stay", "bucket", bucket, "error", err)
		}
	}
	if r.StatusCode/100 == 2 {
		h.encryption(r.Request, r.Header)
	}
	switch {
	case r.StatusCode != http.StatusOK:
	case len(c.denied) > 0:
		return withDenied(r, c.denied)
	case c.parts:
		return h.withParts(r, c)
	case c.listed:
		return h.withTokens(r, c)
	}
	return nil
}

// maxResult bounds the answer to DeleteObjects: 1000 keys, and what stands around them.
const maxResult = 8 << 20

// withDenied adds to a DeleteResult what was refused.
func withDenied(r *http.Response, denied []refusedKey) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxResult))
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return err
	}
	end := bytes.LastIndex(data, []byte("</DeleteResult>"))
	var more []byte
	if end < 0 {
		// "<DeleteResult/>": nothing was to be told.
		at := bytes.LastIndex(data, []byte("<DeleteResult"))
		if at < 0 {
			return errors.New("the answer to DeleteObjects is none")
		}
		head, _, _ := bytes.Cut(data[at:], []byte("/>"))
		data = append(append(bytes.Clone(data[:at]), head...), ">"...)
		end, more = len(data), []byte("</DeleteResult>")
	} else {
		more = data[end:]
	}
	var b bytes.Buffer
	b.Write(data[:end])
	b.Write(errorsOf(denied))
	b.Write(more)
	r.Body = io.NopCloser(&b)
	r.ContentLength = int64(b.Len())
	r.Header.Set("Content-Length", strconv.Itoa(b.Len()))
	return nil
}
