package lambdaapi

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

// TestParseError: Jackson's words. Those of the first group were recorded from callers of Lambda (public issue threads of 2020 to
// 2025: an unquoted name, a second value, a word, a character that is none); the others are the library's by its source.
func TestParseError(t *testing.T) {
	at := func(line, column string) string {
		return "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: " + line + ", column: " + column + "]"
	}
	for text, want := range map[string]string{
		"{config: 1}":  "Unexpected character ('c' (code 99)): was expecting double-quote to start field name\n at " + at("1", "2"),
		`{"a": "b" 1}`: "Unexpected character ('1' (code 49)): was expecting comma to separate Object entries\n at " + at("1", "11"),
		"Hello World":  "Unrecognized token 'Hello': was expecting (JSON String, Number, Array, Object or token 'null', 'true' or 'false')\n at " + at("1", "7"),
		"·":            "Unexpected character ('·' (code 183)): expected a valid value (JSON String, Number, Array, Object or token 'null', 'true' or 'false')\n at " + at("1", "1"),

		"tru":            "Unrecognized token 'tru': was expecting (JSON String, Number, Array, Object or token 'null', 'true' or 'false')\n at " + at("1", "4"),
		"{'a':1}":        "Unexpected character (''' (code 39)): was expecting double-quote to start field name\n at " + at("1", "2"),
		`{"a":1,}`:       "Unexpected character ('}' (code 125)): was expecting double-quote to start field name\n at " + at("1", "8"),
		`{"a" 1}`:        "Unexpected character ('1' (code 49)) within/between Object entries: was expecting a colon to separate field name and value\n at " + at("1", "6"),
		"[1 2]":          "Unexpected character ('2' (code 50)): was expecting comma to separate Array entries\n at " + at("1", "4"),
		"[1,]":           "Unexpected character (']' (code 93)): expected a value\n at " + at("1", "4"),
		"[1}":            "Unexpected close marker '}': expected ']' (for Array starting at " + at("1", "1") + ")\n at " + at("1", "3"),
		"{\n \"a\":\n[]": "Unexpected end-of-input: expected close marker for Object (start marker at " + at("1", "1") + ")\n at " + at("3", "3"),
		`{"a":`:          "Unexpected end-of-input within/between Object entries\n at " + at("1", "6"),
		"[1,":            "Unexpected end-of-input within/between Array entries\n at " + at("1", "4"),
		`{"a`:            "Unexpected end-of-input: was expecting closing '\"' for name\n at " + at("1", "4"),
		`"a`:             "Unexpected end-of-input: was expecting closing quote for a string value\n at " + at("1", "3"),
		"\"a\nb\"":       "Illegal unquoted character ((CTRL-CHAR, code 10)): has to be escaped using backslash to be included in string value\n at " + at("1", "3"),
		`"\x"`:           "Unrecognized character escape 'x' (code 120)\n at " + at("1", "3"),
		`"\u12g4"`:       "Unexpected character ('g' (code 103)): expected a hex-digit for character escape sequence\n at " + at("1", "6"),
		"01":             "Invalid numeric value: Leading zeroes not allowed\n at " + at("1", "2"),
		"-a":             "Unexpected character ('a' (code 97)) in numeric value: expected digit (0-9) to follow minus sign, for valid numeric value\n at " + at("1", "2"),
		"[1.]":           "Unexpected character (']' (code 93)) in numeric value: Decimal point not followed by a digit\n at " + at("1", "4"),
		"1e+":            "Unexpected end-of-input in numeric value\n at " + at("1", "4"),
		"  ":             "No content to map due to end-of-input\n at " + at("1", "3"),
		"\"\xff\"":       "Invalid UTF-8 start byte 0xff\n at " + at("1", "2"),
		"\"\xc3(\"":      "Invalid UTF-8 middle byte 0x28\n at " + at("1", "3"),
		"\ufeff{}":       "Unexpected character ('\ufeff' (code 65279 / 0xfeff)): expected a valid value (JSON String, Number, Array, Object or token 'null', 'true' or 'false')\n at " + at("1", "1"),
	} {
		assert.Equal(t, want, parseError([]byte(text)), "%q", text)
	}
	for _, text := range []string{"{}", ` {"a":[1,-0.5e+7,"\u00e9\"\\",true,false,null,{"b":{}}],"":[]} `, "3", `"λ"`} {
		assert.Empty(t, parseError([]byte(text)), text)
	}
}

// FuzzParseError: there is something to say of exactly what is no JSON.
func FuzzParseError(f *testing.F) {
	for _, seed := range []string{`{"a":[1,{"b":"\u12`, "[01]", `{"a" 1}`, "\"\xff", "nulll", "[[[]]", "{} {}", "1 ", "-", "\xc3(", `"\ud83d"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Count(string(text), "[")+strings.Count(string(text), "{") > 5000 {
			return // encoding/json has a deepest level, this has none
		}
		want := json.Valid(text) && utf8.Valid(text)
		if got := parseError(text); (got == "") != want {
			t.Fatalf("%q: valid %v, problem %q", text, want, got)
		}
	})
}
