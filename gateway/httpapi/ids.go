package httpapi

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"
)

// ids are the random identifiers of one request.
type ids struct {
	// request is a random UUID. A client cannot choose it, as with AWS.
	request string
	// extended is the answer's x-amz-apigw-id.
	extended string
	// root and parent are what a trace header may lack.
	root   [12]byte
	parent [8]byte
}

func newIDs() ids {
	var random [16 + 11 + 12 + 8]byte
	_, _ = rand.Read(random[:]) // it never fails (crypto/rand)
	var id ids
	u := random[:16]
	u[6] = u[6]&0x0f | 0x40 // version 4, variant 10 (RFC 9562)
	u[8] = u[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[:8], u[:4])
	text[8] = '-'
	hex.Encode(text[9:13], u[4:6])
	text[13] = '-'
	hex.Encode(text[14:18], u[6:8])
	text[18] = '-'
	hex.Encode(text[19:23], u[8:10])
	text[23] = '-'
	hex.Encode(text[24:], u[10:])
	id.request = string(text[:])
	var extended [16]byte
	base64.URLEncoding.Encode(extended[:], random[16:27])
	id.extended = string(extended[:])
	copy(id.root[:], random[27:])
	copy(id.parent[:], random[39:])
	return id
}

// maxTraceBytes bounds what is kept of a client's trace header beyond its three parts.
const maxTraceBytes = 256

// trace returns a whole X-Amzn-Trace-Id value. The client's is kept if it has a Root; SDKs accept a trace only when
// Root, Parent and Sampled are all there, so what is missing is added. Sampled is 1 if the client sent a Parent,
// else 0 (section 6 of tests/conformance/rows.yml).
func (id *ids) trace(header string, now time.Time) string {
	var root, parent, sampled string
	var rest []string
	if len(header) <= maxTraceBytes {
		for header != "" {
			var part string
			part, header, _ = strings.Cut(header, ";")
			part = strings.TrimSpace(part)
			name, value, _ := strings.Cut(part, "=")
			switch {
			case name == "Root" && validRoot(value):
				root = value
			case name == "Parent" && isHex(value, 16):
				parent = value
			case name == "Sampled" && (value == "0" || value == "1"):
				sampled = value
			case (name == "Self" || name == "Lineage") && plainValue(value):
				rest = append(rest, part)
			}
		}
	}
	out := make([]byte, 0, 96)
	out = append(out, "Root="...)
	if root == "" {
		// A parent belongs to a root; without one it means nothing.
		parent, sampled = "", ""
		out = append(out, '1', '-')
		var epoch [4]byte
		binary.BigEndian.PutUint32(epoch[:], uint32(now.Unix()))
		out = hex.AppendEncode(out, epoch[:])
		out = append(out, '-')
		out = hex.AppendEncode(out, id.root[:])
	} else {
		out = append(out, root...)
	}
	out = append(out, ";Parent="...)
	if sampled == "" {
		sampled = "0"
		if parent != "" {
			sampled = "1"
		}
	}
	if parent == "" {
		out = hex.AppendEncode(out, id.parent[:])
	} else {
		out = append(out, parent...)
	}
	out = append(out, ";Sampled="...)
	out = append(out, sampled...)
	for _, part := range rest {
		out = append(out, ';')
		out = append(out, part...)
	}
	return string(out)
}

// validRoot says whether s is 1-<8 hex>-<24 hex>.
func validRoot(s string) bool {
	return len(s) == 35 && s[:2] == "1-" && s[10] == '-' && isHex(s[2:10], 8) && isHex(s[11:], 24)
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// plainValue says whether s has only the letters that trace fields are made of.
func plainValue(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != ':' && c != '|' && c != '.' {
			return false
		}
	}
	return s != ""
}
