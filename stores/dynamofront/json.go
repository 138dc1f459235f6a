package dynamofront

import (
	"encoding/json"
	"errors"
	"strings"
)

// errShape is JSON of another kind than it should be.
var errShape = errors.New("unexpected JSON")

// members calls f for each member of an object, in order and twice for one that is there twice. data is valid JSON. Nothing
// of it is copied: bodies have up to 16 MB.
func members(data []byte, f func(name string, value []byte) error) error {
	return pairs(data, func(quoted, value []byte) error {
		name, err := text(quoted)
		if err != nil {
			return err
		}
		return f(name, value)
	})
}

// pairs calls f for each member of an object, with its name as it is written. data is valid JSON.
func pairs(data []byte, f func(name, value []byte) error) error {
	s := scanner{data: data}
	return s.each('{', '}', func() error {
		name := s.part()
		s.next() // the colon
		return f(name, s.part())
	})
}

// elements calls f for each element of an array. data is valid JSON.
func elements(data []byte, f func(value []byte) error) error {
	s := scanner{data: data}
	return s.each('[', ']', func() error { return f(s.part()) })
}

// text reads a string. data is valid JSON.
func text(data []byte) (string, error) {
	var s string
	if len(data) == 0 || data[0] != '"' || json.Unmarshal(data, &s) != nil {
		return "", errShape
	}
	return s, nil
}

// scanner walks over valid JSON.
type scanner struct {
	data []byte
	at   int
}

func (s *scanner) blanks() {
	for s.at < len(s.data) && strings.IndexByte(" \t\r\n", s.data[s.at]) >= 0 {
		s.at++
	}
}

// next returns the next character that is no blank, and goes past it.
func (s *scanner) next() byte {
	s.blanks()
	if s.at == len(s.data) {
		return 0
	}
	s.at++
	return s.data[s.at-1]
}

// each calls f before each part of what stands between two characters; f goes past the part.
func (s *scanner) each(first, last byte, f func() error) error {
	if s.next() != first {
		return errShape
	}
	for s.next() != last {
		if s.data[s.at-1] != ',' {
			s.at--
		}
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// part returns the next value, or name, and goes past it.
func (s *scanner) part() []byte {
	s.blanks()
	from := s.at
	s.value()
	return s.data[from:s.at]
}

// value goes past a value.
func (s *scanner) value() {
	depth := 0
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case '"':
			s.at++
			for s.data[s.at] != '"' {
				if s.data[s.at] == '\\' {
					s.at++
				}
				s.at++
			}
			s.at++
		case '{', '[':
			depth++
			s.at++
		case '}', ']':
			if depth == 0 {
				return // of a number or word
			}
			depth--
			s.at++
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return
			}
			s.at++
			continue
		default:
			s.at++
			if depth == 0 {
				continue // more of a number or word
			}
		}
		if depth == 0 {
			return
		}
	}
}
