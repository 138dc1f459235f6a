package conformance

import (
	"bufio"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMatcher_JSON(t *testing.T) {
	const id = "b2f6f0a4-8c1e-4c5b-9d0e-3f1a2b3c4d5e"
	tests := []struct {
		name, want, got string
		differences     int
	}{
		{"equal", `{"a":[1,"x",null,true]}`, `{"a":[1,"x",null,true]}`, 0},
		{"number of another writing", `{"a":1}`, `{"a":1.0}`, 1},
		{"text for a number", `{"a":1}`, `{"a":"1"}`, 1},
		{"null for a text", `{"a":"x"}`, `{"a":null}`, 1},
		{"missing and unexpected", `{"a":1}`, `{"b":1}`, 2},
		{"more is allowed", `{"a":1,"...":""}`, `{"a":1,"b":1}`, 0},
		{"absent", `{"a":"{{absent}}","...":""}`, `{"b":1}`, 0},
		{"not absent", `{"a":"{{absent}}","...":""}`, `{"a":null}`, 1},
		{"list too long", `[1]`, `[1,2]`, 1},
		{"uuid", `"{{uuid}}"`, `"` + id + `"`, 0},
		{"no uuid", `"{{uuid}}"`, `"x` + id + `"`, 1},
		{"any type", `["{{any}}","{{any}}"]`, `[null,{"a":1}]`, 0},
		{"number", `["{{epoch_ms}}","{{number}}"]`, `[1700000000000,-1]`, 0},
		{"epoch as text", `"{{epoch_ms}}"`, `"1700000000000"`, 1},
		{"text is no number", `"{{text}}"`, `12`, 1},
		{"inside", `"a {{hex16}};b{{variable}}."`, `"a 0123456789abcdef;b(v)."`, 0},
		{"label", `["{{uuid:r}}","x{{uuid:r}}"]`, `["` + id + `","x` + id + `"]`, 0},
		{"another value under a label", `["{{uuid:r}}","{{uuid:r}}"]`, `["` + id + `","a` + id[1:] + `"]`, 1},
		{"unknown placeholder", `"{{nonsense}}"`, `"x"`, 1},
		{"not JSON", `1`, `1 x`, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &Matcher{Vars: map[string]string{"variable": "(v)"}}
			assert.Len(t, m.JSON([]byte(tt.want), []byte(tt.got)), tt.differences)
		})
	}
}

func TestMatcher_Response(t *testing.T) {
	wire := "HTTP/1.1 200 OK\r\nx-amzn-RequestId: 7\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nhi"
	got, err := receive(bufio.NewReader(strings.NewReader(wire)), "GET")
	require.NoError(t, err)
	tests := []struct {
		name, want  string
		differences int
	}{
		{"as expected", `{"status":200,"headers":{"x-amzn-RequestId":"{{number}}","Set-Cookie":["a","b"]},"absent":["Date"],"body":"hi","body_size":2,"body_base64":"aGk="}`, 0},
		{"status", `{"status":201}`, 1},
		{"spelling of a header", `{"status":200,"headers":{"X-Amzn-Requestid":"7"}}`, 1},
		{"one of two values", `{"status":200,"headers":{"Set-Cookie":"a"}}`, 1},
		{"absent in any spelling", `{"status":200,"absent":["SET-COOKIE"]}`, 2},
		{"body", `{"status":200,"body":"hi ","body_size":3,"body_base64":"aGkg"}`, 3},
		{"unknown key", `{"status":200,"headres":{}}`, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Len(t, (&Matcher{}).Response([]byte(tt.want), got), tt.differences)
		})
	}
}

func TestReport_SaysWhatIsMissing(t *testing.T) {
	rows := &Rows{Sections: []Section{{ID: "1", Title: "t", Rows: []Row{
		{ID: "a", Words: "first"}, {ID: "b", Words: "second", LeftOut: "why"}, {ID: "c", Words: "third"}, {ID: "d", Words: "fourth", Unsure: true},
	}}}}
	of := func(id string, failures ...string) outcome {
		return outcome{&Case{Section: "1", Name: "case-" + id, Rows: []string{id}}, failures}
	}
	text, bad := report(rows, []outcome{of("a"), of("d", "it is otherwise")})
	assert.Equal(t, []string{"1 rows have no case and no reason", "1 cases failed"}, bad)
	assert.Contains(t, text, "third")
	assert.Contains(t, text, "it is otherwise")
	_, bad = report(rows, []outcome{of("a"), of("c"), of("d")})
	assert.Empty(t, bad)
	_, bad = report(rows, []outcome{of("a"), of("b"), of("c"), of("d")})
	assert.Len(t, bad, 1, "a row with cases is not left out")
}

// TestCases_AreWellFormed needs no box.
func TestCases_AreWellFormed(t *testing.T) {
	rows, err := loadRows("rows.yml")
	require.NoError(t, err)
	cases, err := loadCases("cases", rows, kinds)
	require.NoError(t, err)
	assert.NotEmpty(t, cases)
}
