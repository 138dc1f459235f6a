package event

import "strings"

// query is a decoded query string: its parameters in order, grouped by name.
type query struct {
	params []param
	// index finds the first parameter of a name once there are more than linearNames.
	index map[string]int
}

type param struct {
	name, value string
	// next is the following parameter of the same name, -1 at the end.
	next int
	// tail is the last parameter of the same name, kept at the first of them; -1 elsewhere.
	tail int
}

// parseQuery decodes a raw query string as API Gateway does: "+" is a space, %XX a byte, an escape that is broken
// stays as it is, and only "&" separates.
func parseQuery(raw string) query {
	var q query
	if raw == "" {
		return q
	}
	q.params = make([]param, 0, strings.Count(raw, "&")+1)
	for raw != "" {
		var piece string
		piece, raw, _ = strings.Cut(raw, "&")
		if piece == "" {
			continue
		}
		name, value, _ := strings.Cut(piece, "=")
		q.add(unescape(name), unescape(value))
	}
	return q
}

// linearNames is up to how many parameters a scan is cheaper than a map; above it a map keeps a hostile query
// from costing the square of its length.
const linearNames = 16

func (q *query) add(name, value string) {
	at := len(q.params)
	head := q.find(name)
	p := param{name: name, value: value, next: -1, tail: -1}
	if head < 0 {
		p.tail = at
		if q.index != nil {
			q.index[name] = at
		}
	} else {
		q.params[q.params[head].tail].next = at
		q.params[head].tail = at
	}
	q.params = append(q.params, p)
	if len(q.params) == linearNames {
		q.index = make(map[string]int, cap(q.params))
		for i, p := range q.params {
			if p.tail >= 0 {
				q.index[p.name] = i
			}
		}
	}
}

// find returns the first parameter with that name, -1 when there is none.
func (q *query) find(name string) int {
	if q.index != nil {
		if i, ok := q.index[name]; ok {
			return i
		}
		return -1
	}
	for i := range q.params {
		if q.params[i].tail >= 0 && q.params[i].name == name {
			return i
		}
	}
	return -1
}

func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			out = append(out, ' ')
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			out = append(out, fromHex(s[i+1])<<4|fromHex(s[i+2]))
			i += 2
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func fromHex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}
