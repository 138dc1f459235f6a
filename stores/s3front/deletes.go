package s3front

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"

	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

const (
	// maxDeletes bounds the body of DeleteObjects: 1000 keys of 1024 bytes each (S3 API reference), and what stands around them.
	maxDeletes = 2 << 20
	// maxKeys is how many objects one request may delete (S3 API reference, DeleteObjects).
	maxKeys = 1000
)

var errDeletes = &s3Error{http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema."}

// deleted reads which objects a body of DeleteObjects names. It takes nothing that another parser might understand in
// another way: what is decided on here is what the store does.
func deleted(bucket string, body []byte) ([]need, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	var needs []need
	var path []string
	key, keys := "", 0
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			if len(path) != 0 || len(needs) == 0 {
				return nil, errDeletes
			}
			return needs, nil
		}
		if err != nil {
			return nil, errDeletes
		}
		switch t := token.(type) {
		case xml.StartElement:
			path = append(path, t.Name.Local)
			if t.Name.Space != "" || !allowed(path) || len(path) == 1 && len(needs) > 0 {
				return nil, errDeletes
			}
			switch {
			case len(path) == 2 && path[1] == "Object":
				key, keys = "", 0
			case len(path) == 3 && path[2] == "Key":
				keys++
			}
		case xml.EndElement:
			if len(path) == 0 || path[len(path)-1] != t.Name.Local {
				return nil, errDeletes
			}
			if len(path) == 2 && path[1] == "Object" {
				if keys != 1 || key == "" || climbs(key) || len(needs) == maxKeys {
					return nil, errDeletes
				}
				needs = append(needs, need{action: "s3:DeleteObject", bucket: bucket, key: key, access: functionaccess.Write})
			}
			path = path[:len(path)-1]
		case xml.CharData:
			switch {
			case len(path) == 3 && path[2] == "Key":
				key += string(t)
			case len(path) == 3 && path[2] == "VersionId":
				if !ids.Match(t) {
					return nil, errDeletes
				}
			case len(path) < 3 && len(bytes.TrimSpace(t)) != 0 && (len(path) != 2 || path[1] != "Quiet"):
				return nil, errDeletes
			}
		case xml.ProcInst:
			if t.Target != "xml" || len(path) != 0 || len(needs) != 0 {
				return nil, errDeletes
			}
		default: // comments and directives
			return nil, errDeletes
		}
	}
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
