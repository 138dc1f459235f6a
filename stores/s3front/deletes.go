package s3front

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

const (
	// maxDeletes bounds the body of DeleteObjects: 1000 keys of 1024 bytes each (S3 API reference), and what stands around them.
	maxDeletes = 2 << 20
	// maxKeys is how many objects one request may delete (S3 API reference, DeleteObjects).
	maxKeys = 1000
)

var errDeletes = &s3Error{http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema."}

// deletion is what a body of DeleteObjects asks for.
type deletion struct {
	XMLName xml.Name `xml:"Delete"`
	Quiet   string   `xml:",omitempty"`
	Objects []deletedObject
}

type deletedObject struct {
	XMLName xml.Name `xml:"Object"`
	Key     string
	// What else the schema has for an object, as it was given.
	VersionId        string `xml:",omitempty"`
	ETag             string `xml:",omitempty"`
	LastModifiedTime string `xml:",omitempty"`
	Size             string `xml:",omitempty"`
}

// refusedKey is an object that a function may not delete. As an XML element it is S3's (S3 API reference, DeleteObjects).
type refusedKey struct {
	XMLName   xml.Name `xml:"Error"`
	Key       string
	VersionId string `xml:",omitempty"`
	Code      string
	Message   string
}

func errorsOf(denied []refusedKey) []byte {
	data, _ := xml.Marshal(denied) // text only
	return data
}

// deletes reads which objects a function wants to delete. Those that it may not delete are taken out of the request, and told in
// the answer, as S3 does.
func (h *handler) deletes(r *http.Request, c *checked, bucket string, rights functionaccess.Rights, claim *budget.Claim) error {
	body, err := budget.ReadAll(r.Body, nil, r.ContentLength, maxDeletes, claim)
	if err != nil {
		return err
	}
	asked, err := deleted(body)
	if err != nil {
		return err
	}
	var mayDelete []deletedObject
	var first error
	for _, o := range asked.Objects {
		err := decide(operation{needs: []need{{action: "s3:DeleteObject", bucket: bucket, key: o.Key, access: functionaccess.Write}}}, rights)
		if err == nil {
			mayDelete = append(mayDelete, o)
			continue
		}
		if first == nil {
			first = err
		}
		answer := answerOf(err)
		c.denied = append(c.denied, refusedKey{Key: o.Key, VersionId: o.VersionId, Code: answer.code, Message: answer.message})
	}
	if len(c.denied) > 0 {
		h.opts.Logger.Warn("objects that a function may not delete were left out", "function", rights.Name, "bucket", bucket, "objects", len(c.denied), "error", first.Error())
		if c.nothing = len(mayDelete) == 0; c.nothing {
			return nil
		}
		asked.Objects = mayDelete
		if body, err = xml.Marshal(asked); err != nil {
			return err
		}
		body = append([]byte(xml.Header), body...)
		// What the client said of its body is not true of this one.
		for name := range r.Header {
			if name == "Content-Md5" || strings.HasPrefix(name, "X-Amz-Checksum-") || name == "X-Amz-Sdk-Checksum-Algorithm" {
				r.Header.Del(name)
			}
		}
		sum := md5.Sum(body)
		r.Header.Set("Content-Md5", base64.StdEncoding.EncodeToString(sum[:]))
		if c.signature.Presigned {
			return errUnsupported // no SDK makes a link to that
		}
		c.payload = sigv4.HashPayload(body)
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

// deletedNothing answers a DeleteObjects of which the function may delete no object: S3 answers 200 then too, with an error for
// each (S3 API reference, DeleteObjects: "performs a delete action and returns the result of that delete, success or failure").
func (h *handler) deletedNothing(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(contextKey{}).(*checked) // ServeHTTP has put it there
	w.Header().Set("Content-Type", "application/xml")
	answer := xml.Header + `<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` + string(errorsOf(c.denied)) + "</DeleteResult>"
	_, _ = io.WriteString(w, answer) // a client that has gone needs no answer
}

// deleted reads which objects a body of DeleteObjects names. It takes nothing that another parser might understand in
// another way: what is decided on here is what the store does.
func deleted(body []byte) (deletion, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	var all deletion
	var path []string
	var object deletedObject
	keys := 0
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			if len(path) != 0 || len(all.Objects) == 0 {
				return all, errDeletes
			}
			return all, nil
		}
		if err != nil {
			return all, errDeletes
		}
		switch t := token.(type) {
		case xml.StartElement:
			path = append(path, t.Name.Local)
			if t.Name.Space != "" || !allowed(path) || len(path) == 1 && len(all.Objects) > 0 {
				return all, errDeletes
			}
			switch {
			case len(path) == 2 && path[1] == "Object":
				object, keys = deletedObject{}, 0
			case len(path) == 3 && path[2] == "Key":
				keys++
			}
		case xml.EndElement:
			if len(path) == 0 || path[len(path)-1] != t.Name.Local {
				return all, errDeletes
			}
			if len(path) == 2 && path[1] == "Object" {
				if keys != 1 || object.Key == "" || climbs(object.Key) || len(all.Objects) == maxKeys {
					return all, errDeletes
				}
				all.Objects = append(all.Objects, object)
			}
			path = path[:len(path)-1]
		case xml.CharData:
			switch {
			case len(path) == 3 && path[2] == "VersionId" && !ids.Match(t):
				return all, errDeletes
			case len(path) == 3:
				*object.member(path[2]) += string(t)
			case len(path) == 2 && path[1] == "Quiet":
				all.Quiet += string(t)
			case len(bytes.TrimSpace(t)) != 0:
				return all, errDeletes
			}
		case xml.ProcInst:
			if t.Target != "xml" || len(path) != 0 || len(all.Objects) != 0 {
				return all, errDeletes
			}
		default: // comments and directives
			return all, errDeletes
		}
	}
}

// member is what an element of an object, which the schema allows, stands for.
func (o *deletedObject) member(name string) *string {
	switch name {
	case "Key":
		return &o.Key
	case "VersionId":
		return &o.VersionId
	case "ETag":
		return &o.ETag
	case "LastModifiedTime":
		return &o.LastModifiedTime
	}
	return &o.Size
}

// allowed says whether the schema has an element at a path.
func allowed(path []string) bool {
	switch len(path) {
	case 1:
		return path[0] == "Delete"
	case 2:
		return path[1] == "Object" || path[1] == "Quiet"
	case 3:
		if path[1] != "Object" {
			return false
		}
		switch path[2] {
		case "Key", "VersionId", "ETag", "LastModifiedTime", "Size":
			return true
		}
	}
	return false
}
