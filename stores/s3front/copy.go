package s3front

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/sigv4"
)

const (
	// maxCopy is how large an object may be that CopyObject copies (S3 API reference: 5 GiB).
	maxCopy = 5 << 30
	// maxSelfCopy is how large an object may be that is copied onto itself on a condition: it is held in memory meanwhile.
	maxSelfCopy = 8 << 20
	// maxAnswer bounds an answer of the store that is read whole.
	maxAnswer = 1 << 20
)

// Headers of an object that a copy has too, unless the request replaces them (S3 API reference, CopyObject:
// x-amz-metadata-directive).
var copied = []string{"Content-Type", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Expires"}

const metaPrefix = "X-Amz-Meta-"

// copyObject answers a CopyObject with a condition on the object that it would overwrite: neither versitygw (v1.8.0) nor RustFS
// look at it. The source is read and written with PutObject, whose condition both stores check in one step with the write: what
// somebody else writes meanwhile, through whichever door, is not overwritten.
func (h *handler) copyObject(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(contextKey{}).(*checked) // ServeHTTP has put it there
	if err := h.copyOnCondition(w, r, c.signature.Scope.Region); err != nil && r.Context().Err() == nil {
		h.refuse(w, r, err)
	}
}

func (h *handler) copyOnCondition(w http.ResponseWriter, r *http.Request, region string) error {
	source, version, err := readCopySource(r.Header.Get(headerCopySource))
	if err != nil {
		return err
	}
	self := version == "" && r.URL.Path == "/"+source.bucket+"/"+source.key
	replaces := strings.EqualFold(r.Header.Get("X-Amz-Metadata-Directive"), "REPLACE")
	if self && !replaces {
		return &s3Error{http.StatusBadRequest, "InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes."}
	}
	if r.Header.Get("X-Amz-Checksum-Algorithm") != "" {
		return notImplemented("Another checksum algorithm together with a condition on the object that CopyObject would overwrite is not implemented.")
	}
	ask := asker{h: h, region: region, host: r.Host}
	from, err := ask.do(r.Context(), http.MethodGet, source.bucket, source.key, versionQuery(version), sourceConditions(r.Header), nil, 0)
	if err != nil {
		return err
	}
	defer func() { _ = from.Body.Close() }()
	switch {
	case from.StatusCode == http.StatusNotModified, from.StatusCode == http.StatusPreconditionFailed:
		return &s3Error{http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"}
	case from.StatusCode != http.StatusOK:
		return pass(w, from)
	case from.ContentLength < 0:
		return errors.New("the store does not say how long the source is")
	case from.ContentLength > maxCopy:
		return &s3Error{http.StatusBadRequest, "InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120"}
	case self && from.ContentLength > maxSelfCopy:
		return notImplemented("A condition on an object of more than 8 MiB that is copied onto itself is not implemented.")
	}
	header := copiedHeader(r.Header, from.Header, replaces)
	if err := ask.tags(r, source, version, from.Header, header); err != nil {
		return err
	}
	var body io.Reader = from.Body
	if self {
		// Whoever reads an object may keep others from writing it.
		data, err := io.ReadAll(from.Body)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	bucket, key := split(r.URL, "")
	put, err := ask.do(r.Context(), http.MethodPut, bucket, key, "", header, body, from.ContentLength)
	if err != nil {
		return err
	}
	defer func() { _ = put.Body.Close() }()
	if put.StatusCode != http.StatusOK {
		return pass(w, put)
	}
	h.encryption(r, w.Header())
	return h.copyResult(w, ask.modified(r.Context(), bucket, key, put.Header), from.Header, put.Header)
}

// readCopySource reads what is copied: an object, and which version of it.
func readCopySource(text string) (need, string, error) {
	source, err := copySource(text)
	if err != nil {
		return need{}, "", err
	}
	decoded, _ := url.PathUnescape(text)
	_, version, _ := strings.Cut(decoded, "?versionId=")
	return source, version, nil
}

func versionQuery(version string) string {
	if version == "" {
		return ""
	}
	return "versionId=" + url.QueryEscape(version)
}

// sourceConditions are those on the source, as GetObject has them.
func sourceConditions(header http.Header) http.Header {
	out := http.Header{"X-Amz-Checksum-Mode": {"ENABLED"}}
	for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if value := header.Get("X-Amz-Copy-Source-" + name); value != "" {
			out.Set(name, value)
		}
	}
	return out
}

// copiedHeader is that of the object that is written.
func copiedHeader(asked, source http.Header, replaces bool) http.Header {
	out := http.Header{}
	from := source
	if replaces {
		from = asked
	}
	for name, values := range from {
		if strings.HasPrefix(name, metaPrefix) {
			out[name] = values
		}
	}
	for _, name := range copied {
		if value := from.Get(name); value != "" {
			out.Set(name, value)
		}
	}
	for name, values := range asked {
		switch {
		case name == "If-Match", name == "If-None-Match", name == "X-Amz-Acl", name == "X-Amz-Storage-Class", name == "X-Amz-Website-Redirect-Location",
			strings.HasPrefix(name, "X-Amz-Server-Side-Encryption"), strings.HasPrefix(name, "X-Amz-Object-Lock-"):
			out[name] = values
		}
	}
	// One of a whole object is also that of its copy; the store checks what it gets by it.
	if source.Get("X-Amz-Checksum-Type") == "FULL_OBJECT" {
		for name, values := range source {
			if _, known := checksumLength[strings.ToLower(name)]; known {
				out[name] = values
			}
		}
	}
	return out
}

// copyResult answers as S3 does.
func (h *handler) copyResult(w http.ResponseWriter, modified time.Time, source, put http.Header) error {
	result := struct {
		XMLName      xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CopyObjectResult"`
		ETag         string
		LastModified string
	}{ETag: put.Get("Etag"), LastModified: modified.UTC().Format("2006-01-02T15:04:05.000Z")}
	data, err := xml.Marshal(result)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/xml")
	for name, value := range map[string]string{"X-Amz-Version-Id": put.Get("X-Amz-Version-Id"), "X-Amz-Copy-Source-Version-Id": source.Get("X-Amz-Version-Id")} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	_, _ = w.Write(append([]byte(xml.Header), data...)) // a client that has gone needs no answer
	return nil
}

// pass gives on what the store has answered.
func pass(w http.ResponseWriter, from *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(from.Body, maxAnswer))
	if err != nil {
		return err
	}
	for _, name := range []string{"Content-Type", "X-Amz-Request-Id", "X-Amz-Id-2", "X-Amz-Delete-Marker", "X-Amz-Version-Id"} {
		if value := from.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(from.StatusCode)
	_, _ = w.Write(data) // a client that has gone needs no answer
	return nil
}

// asker asks the store in its own name, for a request whose rights were looked at.
type asker struct {
	h            *handler
	region, host string
}

// do asks for one operation on an object. The caller closes the answer's body.
func (a asker) do(ctx context.Context, method, bucket, key, query string, header http.Header, body io.Reader, length int64) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://store/", body)
	if err != nil {
		return nil, err
	}
	r.URL = &url.URL{Scheme: "http", Host: "store", Path: "/" + bucket + "/" + key, RawQuery: query}
	r.Host, r.Header, r.ContentLength = a.host, header, length
	if length == 0 {
		r.Body = http.NoBody
	}
	region := a.region
	if region == "" {
		region = a.h.opts.region()
	}
	payload := sigv4.UnsignedPayload
	if length == 0 {
		payload = sigv4.HashPayload(nil)
	} else {
		r.Header.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	sigv4.Sign(r, a.h.opts.Callers.Store, region, service, payload, time.Now())
	return a.h.proxy.Transport.RoundTrip(r)
}

// tags sets those of the copy: the source's, unless the request replaces them.
func (a asker) tags(r *http.Request, source need, version string, from, header http.Header) error {
	if strings.EqualFold(r.Header.Get("X-Amz-Tagging-Directive"), "REPLACE") {
		if tags := r.Header.Get(headerTagging); tags != "" {
			header.Set(headerTagging, tags)
		}
		return nil
	}
	if count := from.Get("X-Amz-Tagging-Count"); count == "" || count == "0" {
		return nil
	}
	query := "tagging="
	if version != "" {
		query += "&" + versionQuery(version)
	}
	answer, err := a.do(r.Context(), http.MethodGet, source.bucket, source.key, query, http.Header{}, nil, 0)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	var tags struct {
		Tags []struct{ Key, Value string } `xml:"TagSet>Tag"`
	}
	if answer.StatusCode != http.StatusOK {
		return errors.New("the tags of the source cannot be read")
	}
	if err := xml.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&tags); err != nil {
		return err
	}
	var text []string
	for _, tag := range tags.Tags {
		text = append(text, url.QueryEscape(tag.Key)+"="+url.QueryEscape(tag.Value))
	}
	header.Set(headerTagging, strings.Join(text, "&"))
	return nil
}

// modified is when the object was written that the store has just taken.
func (a asker) modified(ctx context.Context, bucket, key string, put http.Header) time.Time {
	query := versionQuery(put.Get("X-Amz-Version-Id"))
	head, err := a.do(ctx, http.MethodHead, bucket, key, query, http.Header{}, nil, 0)
	if err == nil {
		_ = head.Body.Close()
		if at, err := http.ParseTime(head.Header.Get("Last-Modified")); err == nil && head.Header.Get("Etag") == put.Get("Etag") {
			return at
		}
	}
	return time.Now()
}
