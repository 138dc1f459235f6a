package http1

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// refusal is why a request cannot be read, and what its sender is told.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

func bad(reason string) error { return &refusal{400, reason} }

// readHead reads a head. An error that is no *refusal is one of the connection.
func (c *conn) readHead(x *Exchange) error {
	scanned, limited, skipped := 0, false, false
	for {
		text := c.buf[c.r:c.w]
		if !skipped && len(text) >= 2 {
			if skipped = true; text[0] == '\r' && text[1] == '\n' {
				c.r += 2 // behind the body before (RFC 9112, 2.2)
				scanned = 0
				continue
			}
		}
		var end int
		if end, scanned = headEnd(text, scanned); end > 0 {
			if end > maxHead {
				break
			}
			if limited {
				if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
					return err
				}
			}
			head := string(text[:end])
			c.r += end
			return x.parse(head)
		}
		if len(text) > maxHead {
			break
		}
		if t := c.server.HeadTimeout; t > 0 && !limited {
			limited = true
			if err := c.nc.SetReadDeadline(time.Now().Add(t)); err != nil {
				return err
			}
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
	return &refusal{431, "the head is too long"}
}

// headEnd returns how long the head is that text begins with, 0 when it is not all there; the next look may begin at next.
func headEnd(text []byte, from int) (end, next int) {
	for {
		n := bytes.IndexByte(text[from:], '\n')
		if n < 0 {
			return 0, from
		}
		line := text[from : from+n]
		from += n + 1
		// The first line is never taken for the last.
		if from > n+1 && (len(line) == 0 || len(line) == 1 && line[0] == '\r') {
			return from, from
		}
	}
}

// parse reads a whole head.
func (x *Exchange) parse(head string) error {
	line, rest, err := cutLine(head)
	if err != nil {
		return err
	}
	var target, version string
	var ok bool
	if x.Method, target, ok = strings.Cut(line, " "); ok {
		target, version, ok = strings.Cut(target, " ")
	}
	if !ok || !isToken(x.Method) {
		return bad("malformed request line")
	}
	switch version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		x.http10, x.last = true, true
	default:
		if !strings.HasPrefix(version, "HTTP/") {
			return bad("malformed request line")
		}
		return &refusal{505, "HTTP/1.1 is spoken here"}
	}
	if err := x.parseTarget(target); err != nil {
		return err
	}
	if x.fields, err = parseFields(x.fields, rest); err != nil {
		return err
	}
	return x.frame()
}

// cutLine takes the first line off; a bare LF ends one, too (RFC 9112, 2.2), a bare CR never does.
func cutLine(text string) (line, rest string, err error) {
	line, rest, _ = strings.Cut(text, "\n")
	line = strings.TrimSuffix(line, "\r")
	if strings.IndexByte(line, '\r') >= 0 {
		return "", "", bad("a CR without LF")
	}
	return line, rest, nil
}

func (x *Exchange) parseTarget(target string) error {
	if len(target) > 7 && strings.EqualFold(target[:7], "http://") {
		authority, path, _ := strings.Cut(target[7:], "/")
		if !isAuthority(authority) {
			return bad("malformed request target")
		}
		target = "/" + path
	}
	for _, b := range []byte(target) {
		if b <= ' ' || b == 0x7f {
			return bad("malformed request target")
		}
	}
	if target == "" || target[0] != '/' && target != "*" {
		return bad("malformed request target")
	}
	x.Path, x.Query, _ = strings.Cut(target, "?")
	if strings.IndexByte(x.Path, '%') < 0 {
		return nil
	}
	var err error
	if x.Path, err = url.PathUnescape(x.Path); err != nil {
		return bad("malformed request target")
	}
	return nil
}

// isAuthority says whether s is a plain host name or address, and perhaps a port.
func isAuthority(s string) bool {
	host, port, ok := strings.Cut(s, ":")
	for _, b := range []byte(host) {
		if b != '.' && b != '-' && (b < '0' || b > '9') && (b|0x20 < 'a' || b|0x20 > 'z') {
			return false
		}
	}
	return host != "" && (!ok || isNumber(port))
}

// parseFields appends the fields of text, which ends with an empty line, to list.
func parseFields(list []Field, text string) ([]Field, error) {
	for {
		line, rest, err := cutLine(text)
		if err != nil {
			return list, err
		}
		if line == "" {
			return list, nil
		}
		text = rest
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) { // a folded line, too
			return list, bad("malformed header field")
		}
		value = strings.Trim(value, " \t")
		for _, b := range []byte(value) {
			if b < ' ' && b != '\t' || b == 0x7f {
				return list, bad("a control character in a header field")
			}
		}
		list = append(list, Field{name, value})
	}
}

// tokens has the characters of a token (RFC 9110, 5.6.2).
var tokens = func() (t [256]bool) {
	for b := range t {
		t[b] = b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b < 0x80 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(b)) >= 0
	}
	return t
}()

func isToken(s string) bool {
	for _, b := range []byte(s) {
		if !tokens[b] {
			return false
		}
	}
	return s != ""
}

// frame finds out what body the request has, and what becomes of the connection (RFC 9112, 6).
func (x *Exchange) frame() error {
	hosts, lengths, codings := 0, 0, 0
	for n := range x.fields {
		f := &x.fields[n]
		switch len(f.Name) {
		case len("Host"):
			if strings.EqualFold(f.Name, "Host") {
				hosts++
			}
		case len("Expect"):
			if !strings.EqualFold(f.Name, "Expect") {
				continue
			}
			if !strings.EqualFold(f.Value, "100-continue") {
				return &refusal{417, "only 100-continue can be expected"}
			}
			x.expects = !x.http10
		case len("Connection"):
			if strings.EqualFold(f.Name, "Connection") && hasWord(f.Value, "close") {
				x.last = true
			}
		case len("Content-Length"):
			if !strings.EqualFold(f.Name, "Content-Length") {
				continue
			}
			if lengths++; !isNumber(f.Value) {
				return bad("malformed Content-Length")
			}
			length, err := strconv.ParseInt(f.Value, 10, 64)
			if err != nil {
				return bad("malformed Content-Length")
			}
			x.ContentLength = length
		case len("Transfer-Encoding"):
			if !strings.EqualFold(f.Name, "Transfer-Encoding") {
				continue
			}
			if codings++; !strings.EqualFold(f.Value, "chunked") {
				return &refusal{501, "the transfer coding is not understood"}
			}
		}
	}
	switch {
	case hosts > 1 || hosts == 0 && !x.http10:
		return bad("there must be one Host field")
	case lengths > 1 || codings > 1 || codings == 1 && (lengths == 1 || x.http10):
		return bad("the length of the body is not certain")
	}
	x.chunked = codings == 1
	if x.chunked {
		x.ContentLength = -1
	}
	x.left = max(x.ContentLength, 0)
	x.done = x.ContentLength == 0
	x.expects = x.expects && !x.done
	return nil
}

func isNumber(s string) bool {
	for _, b := range []byte(s) {
		if b < '0' || b > '9' {
			return false
		}
	}
	return s != ""
}

// hasWord says whether a list of words has one.
func hasWord(list, word string) bool {
	for list != "" {
		var part string
		part, list, _ = strings.Cut(list, ",")
		if strings.EqualFold(strings.Trim(part, " \t"), word) {
			return true
		}
	}
	return false
}
