package event

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON strictly, token by token. Strings are decoded in place, so data is overwritten as it is read.
type scanner struct {
	data []byte
	pos  int
}

// kind is the kind of a JSON value.
type kind byte

const (
	kindInvalid kind = iota
	kindNull
	kindBool
	kindNumber
	kindString
	kindObject
	kindArray
)

// String implements fmt.Stringer, for error messages.
func (k kind) String() string {
	return [...]string{"invalid JSON", "null", "a boolean", "a number", "a string", "an object", "a list"}[k]
}

// peek skips white space and returns the kind of the value that follows, without reading it.
func (s *scanner) peek() kind {
	s.space()
	if s.pos >= len(s.data) {
		return kindInvalid
	}
	switch c := s.data[s.pos]; {
	case c == '"':
		return kindString
	case c == '{':
		return kindObject
	case c == '[':
		return kindArray
	case c == 'n':
		return kindNull
	case c == 't' || c == 'f':
		return kindBool
	case c == '-' || '0' <= c && c <= '9':
		return kindNumber
	}
	return kindInvalid
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// take skips white space and c; it returns false when something else follows.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// atEnd says whether nothing but white space is left.
func (s *scanner) atEnd() bool {
	s.space()
	return s.pos == len(s.data)
}

// scalar reads a string, number, boolean or null, and returns its text: the decoded string, or the literal.
func (s *scanner) scalar() ([]byte, kind) {
	k := s.peek()
	start := s.pos
	switch k {
	case kindString:
		if text, ok := s.text(); ok {
			return text, k
		}
	case kindNumber:
		if s.number() {
			return s.data[start:s.pos], k
		}
	case kindNull, kindBool:
		for _, word := range [...]string{"null", "true", "false"} {
			if bytes.HasPrefix(s.data[start:], []byte(word)) {
				s.pos += len(word)
				return s.data[start:s.pos], k
			}
		}
	default: // a list or an object is left for the caller
	}
	return nil, kindInvalid
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) number() bool {
	if s.data[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.data) && s.data[s.pos] == '0' {
		s.pos++
	} else if !s.digits() {
		return false
	}
	if s.pos < len(s.data) && s.data[s.pos] == '.' {
		s.pos++
		if !s.digits() {
			return false
		}
	}
	if s.pos < len(s.data) && s.data[s.pos]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		if !s.digits() {
			return false
		}
	}
	return true
}

// text reads a string. Without escapes the result is a part of data; with escapes it is decoded over itself,
// which always fits, because no escape is shorter than what it stands for.
func (s *scanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	start := s.pos
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return s.data[start : s.pos-1], true
		case c == '\\':
			return s.escaped(start)
		case c < 0x20:
			return nil, false
		default:
			s.pos++
		}
	}
	return nil, false
}

// escaped goes on with a string that began at start and has its first backslash at pos.
func (s *scanner) escaped(start int) ([]byte, bool) {
	out := s.pos
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		switch {
		case c == '"':
			s.pos++
			return s.data[start:out], true
		case c < 0x20:
			return nil, false
		case c != '\\':
			s.data[out] = c
			out++
			s.pos++
			continue
		}
		if s.pos+1 >= len(s.data) {
			return nil, false
		}
		c = s.data[s.pos+1]
		s.pos += 2
		switch c {
		case '"', '\\', '/':
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, ok := s.unicode()
			if !ok {
				return nil, false
			}
			out += utf8.EncodeRune(s.data[out:], r)
			continue
		default:
			return nil, false
		}
		s.data[out] = c
		out++
	}
	return nil, false
}

// unicode reads the four digits behind \u, and the second half of a surrogate pair. A lone half is U+FFFD.
func (s *scanner) unicode() (rune, bool) {
	r, ok := s.hex4()
	if !ok || !utf16.IsSurrogate(r) {
		return r, ok
	}
	if !bytes.HasPrefix(s.data[s.pos:], []byte(`\u`)) {
		return utf8.RuneError, true
	}
	before := s.pos
	s.pos += 2
	low, ok := s.hex4()
	if !ok {
		return 0, false
	}
	if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
		return pair, true
	}
	s.pos = before // the second one stands for itself
	return utf8.RuneError, true
}

func (s *scanner) hex4() (rune, bool) {
	if s.pos+4 > len(s.data) {
		return 0, false
	}
	var r rune
	for _, c := range s.data[s.pos : s.pos+4] {
		if !isHex(c) {
			return 0, false
		}
		r = r<<4 | rune(fromHex(c))
	}
	s.pos += 4
	return r, true
}

// skip passes over one value of JSON that is known to be valid.
func (s *scanner) skip() {
	depth := 0
	for s.space(); s.pos < len(s.data); s.space() {
		switch c := s.data[s.pos]; c {
		case '{', '[':
			depth++
			s.pos++
		case '}', ']':
			depth--
			s.pos++
		case ',', ':':
			s.pos++
			continue
		case '"':
			s.skipString()
		default:
			for s.pos < len(s.data) && bytes.IndexByte([]byte(",:]} \t\r\n"), s.data[s.pos]) < 0 {
				s.pos++
			}
		}
		if depth <= 0 {
			return
		}
	}
}

func (s *scanner) skipString() {
	for s.pos++; s.pos < len(s.data); s.pos++ {
		switch s.data[s.pos] {
		case '\\':
			s.pos++
		case '"':
			s.pos++
			return
		}
	}
}
