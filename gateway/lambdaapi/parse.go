package lambdaapi

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lambda's own JSON parser is Jackson's, and its words reach the caller. Recorded from the AWS CLI's users in 2025: "Could not parse
// request body into json: Could not parse payload into json: Unexpected character ('c' (code 99)): was expecting double-quote to start
// field name\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: 2]". The other
// sentences are those of jackson-core's UTF8StreamJsonParser and ParserMinimalBase, version 2.17.

const (
	validValues = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
	// maxToken is how much of a word that is none Jackson repeats.
	maxToken = 256
)

// parseError says what Jackson would say about a text that is no JSON, or no UTF-8; empty when it finds nothing.
func parseError(text []byte) string {
	p := &payloadParser{text: text}
	p.document()
	return p.problem
}

// payloadParser finds the first fault of a text. It goes on as long as problem is empty.
type payloadParser struct {
	text []byte
	pos  int
	// open are the objects and lists that pos is in.
	open    []scope
	problem string
}

// scope is an object or a list: where it begins, and whether it has a value already.
type scope struct {
	start  int
	filled bool
}

func (p *payloadParser) location(pos int) string {
	before := p.text[:min(pos, len(p.text))]
	line, column := 1, pos+1
	for i, c := range before {
		if c == '\n' {
			line, column = line+1, pos-i
		}
	}
	return fmt.Sprintf("[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: %d, column: %d]", line, column)
}

// fail notes a fault that Jackson finds at pos.
func (p *payloadParser) fail(pos int, format string, args ...any) {
	if p.problem == "" {
		p.problem = fmt.Sprintf(format, args...) + "\n at " + p.location(pos)
	}
}

// unexpected is a character that cannot stand where it is.
func (p *payloadParser) unexpected(where, comment string) {
	if p.pos >= len(p.text) {
		p.fail(p.pos, "Unexpected end-of-input%s", where)
		return
	}
	p.fail(p.pos, "Unexpected character (%s)%s: %s", describe(p.character()), where, comment)
}

// character is what stands at pos; what is no UTF-8 counts as its byte.
func (p *payloadParser) character() rune {
	r, size := utf8.DecodeRune(p.text[p.pos:])
	if r == utf8.RuneError && size == 1 {
		return rune(p.text[p.pos])
	}
	return r
}

func describe(r rune) string {
	switch {
	case unicode.IsControl(r):
		return fmt.Sprintf("(CTRL-CHAR, code %d)", r)
	case r > 255:
		return fmt.Sprintf("'%c' (code %d / 0x%x)", r, r, r)
	}
	return fmt.Sprintf("'%c' (code %d)", r, r)
}

func (p *payloadParser) space() {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

// at says whether c stands at pos, and passes it.
func (p *payloadParser) at(c byte) bool {
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *payloadParser) document() {
	if p.space(); p.pos == len(p.text) {
		p.fail(p.pos, "No content to map due to end-of-input")
	}
	p.value()
	for p.problem == "" && len(p.open) > 0 {
		p.next()
	}
	if p.problem != "" {
		return
	}
	if p.space(); p.pos < len(p.text) {
		start := p.pos
		if p.value(); p.problem == "" {
			p.fail(start, "Trailing token found after value: not allowed")
		}
	}
}

// next goes on in the innermost object or list, behind its beginning or behind one of its values.
func (p *payloadParser) next() {
	in := &p.open[len(p.open)-1]
	object, name, closing := p.text[in.start] == '{', "Array", byte(']')
	if object {
		name, closing = "Object", '}'
	}
	if p.space(); p.pos == len(p.text) {
		p.fail(p.pos, "Unexpected end-of-input: expected close marker for %s (start marker at %s)", name, p.location(in.start))
		return
	}
	switch c := p.text[p.pos]; {
	case c == closing:
		p.pos++
		p.open = p.open[:len(p.open)-1]
		return
	case c == '}', c == ']':
		p.fail(p.pos, "Unexpected close marker '%c': expected '%c' (for %s starting at %s)", c, closing, name, p.location(in.start))
		return
	case in.filled && c != ',':
		p.unexpected("", "was expecting comma to separate "+name+" entries")
		return
	case in.filled:
		p.pos++
		if p.space(); p.pos == len(p.text) {
			p.fail(p.pos, "Unexpected end-of-input within/between %s entries", name)
			return
		}
	}
	in.filled = true
	if object {
		p.name()
	}
	p.value()
}

// name reads a member's name and the colon behind it.
func (p *payloadParser) name() {
	if !p.at('"') {
		p.unexpected("", "was expecting double-quote to start field name")
		return
	}
	p.string("name", `: was expecting closing '"' for name`)
	if p.problem != "" {
		return
	}
	if p.space(); !p.at(':') {
		p.unexpected(" within/between Object entries", "was expecting a colon to separate field name and value")
		return
	}
	if p.space(); p.pos == len(p.text) {
		p.fail(p.pos, "Unexpected end-of-input within/between Object entries")
	}
}

// value reads a value, of an object or a list its beginning only.
func (p *payloadParser) value() {
	if p.problem != "" {
		return
	}
	p.space()
	if p.pos == len(p.text) {
		p.unexpected("", "")
		return
	}
	switch c := p.text[p.pos]; {
	case c == '{', c == '[':
		p.open = append(p.open, scope{start: p.pos})
		p.pos++
	case c == '"':
		p.pos++
		p.string("string value", ": was expecting closing quote for a string value")
	case c == '-', '0' <= c && c <= '9':
		p.number()
	case c == ',', c == '}', c == ']' && len(p.open) > 0:
		p.unexpected("", "expected a value")
	default:
		p.word()
	}
}

// word reads true, false or null.
func (p *payloadParser) word() {
	r := p.character()
	if !identifier(r, true) {
		if r == rune(p.text[p.pos]) && r >= utf8.RuneSelf {
			p.fail(p.pos, "Invalid UTF-8 start byte 0x%x", r)
			return
		}
		p.unexpected("", "expected a valid value "+validValues)
		return
	}
	start, read := p.pos, 0
	for p.pos < len(p.text) && identifier(p.character(), false) && read < maxToken {
		_, size := utf8.DecodeRune(p.text[p.pos:])
		p.pos += size
		read++
	}
	word := string(p.text[start:p.pos])
	switch {
	case word == "true", word == "false", word == "null":
	case read == maxToken:
		p.fail(p.pos, "Unrecognized token '%s...': was expecting %s", strings.ToValidUTF8(word, "\ufffd"), validValues)
	default:
		p.fail(min(p.pos+1, len(p.text)), "Unrecognized token '%s': was expecting %s", strings.ToValidUTF8(word, "\ufffd"), validValues)
	}
}

// identifier: Character.isJavaIdentifierStart and -Part, as far as they matter.
func identifier(r rune, first bool) bool {
	return r == '_' || r == '$' || unicode.IsLetter(r) || !first && unicode.IsDigit(r)
}

func (p *payloadParser) digits() bool {
	start := p.pos
	for p.pos < len(p.text) && '0' <= p.text[p.pos] && p.text[p.pos] <= '9' {
		p.pos++
	}
	return p.pos > start
}

func (p *payloadParser) number() {
	const in = " in numeric value"
	p.at('-')
	zero := p.pos < len(p.text) && p.text[p.pos] == '0'
	start := p.pos
	switch {
	case !p.digits():
		p.unexpected(in, "expected digit (0-9) to follow minus sign, for valid numeric value")
	case zero && p.pos > start+1:
		p.fail(start+1, "Invalid numeric value: Leading zeroes not allowed")
	case p.at('.') && !p.digits():
		p.unexpected(in, "Decimal point not followed by a digit")
	case p.pos < len(p.text) && p.text[p.pos]|0x20 == 'e':
		p.pos++
		if !p.at('+') {
			p.at('-')
		}
		if !p.digits() {
			p.unexpected(in, "Exponent indicator not followed by a digit")
		}
	}
	if p.problem == "" && len(p.open) == 0 && p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) < 0 {
		p.unexpected("", "Expected space separating root-level values")
	}
}

// string reads on behind the quote that begins a text. what it is, and what is missing when the text ends in it, are for the
// message.
func (p *payloadParser) string(what, end string) {
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			return
		case c < ' ':
			p.fail(p.pos, "Illegal unquoted character (%s): has to be escaped using backslash to be included in %s", describe(rune(c)), what)
			return
		case c == '\\':
			p.pos++
			if p.escape(); p.problem != "" {
				return
			}
		case c < utf8.RuneSelf:
			p.pos++
		default:
			r, size := utf8.DecodeRune(p.text[p.pos:])
			if r == utf8.RuneError && size == 1 {
				p.invalidUTF8()
				return
			}
			p.pos += size
		}
	}
	p.fail(p.pos, "Unexpected end-of-input%s", end)
}

// invalidUTF8 tells a byte that begins nothing from one that does not go on with what began.
func (p *payloadParser) invalidUTF8() {
	c := p.text[p.pos]
	if c >= 0xc2 && c <= 0xf4 && p.pos+1 < len(p.text) {
		if next := p.text[p.pos+1]; next&0xc0 != 0x80 {
			p.fail(p.pos+1, "Invalid UTF-8 middle byte 0x%x", next)
			return
		}
	}
	p.fail(p.pos, "Invalid UTF-8 start byte 0x%x", c)
}

// escape reads on behind a backslash.
func (p *payloadParser) escape() {
	const in = " in character escape sequence"
	if p.pos == len(p.text) {
		p.fail(p.pos, "Unexpected end-of-input%s", in)
		return
	}
	c := p.text[p.pos]
	switch {
	case strings.IndexByte(`"\/bfnrt`, c) >= 0:
		p.pos++
	case c == 'u':
		p.pos++
		for range 4 {
			if p.pos == len(p.text) {
				p.fail(p.pos, "Unexpected end-of-input%s", in)
				return
			}
			if strings.IndexByte("0123456789abcdefABCDEF", p.text[p.pos]) < 0 {
				p.unexpected("", "expected a hex-digit for character escape sequence")
				return
			}
			p.pos++
		}
	default:
		p.fail(p.pos, "Unrecognized character escape %s", describe(p.character()))
	}
}
