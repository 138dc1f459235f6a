package dynamofront

import (
	"strings"

	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

// statementTable reads which table a PartiQL statement is for, and what it does with it (DynamoDB developer guide, "PartiQL
// statements": SELECT ... FROM, INSERT INTO, UPDATE, DELETE FROM, each on one table). It says false of what could be understood in
// another way: a comment, a second statement, a table that is named twice.
func statementTable(statement string) (table string, access functionaccess.Access, ok bool) {
	words, ok := wordsOf(statement)
	if !ok || len(words) < 2 {
		return "", "", false
	}
	access = write
	at := 1
	first := strings.ToUpper(words[0].text)
	switch {
	case words[0].quoted:
		return "", "", false
	case first == "SELECT":
		access = read
		for at = 1; at < len(words) && !words[at].is("FROM"); at++ {
		}
		at++
	case first == "INSERT" && words[1].is("INTO"), first == "DELETE" && words[1].is("FROM"):
		at = 2
	case first == "UPDATE":
	default:
		return "", "", false
	}
	if at >= len(words) || words[at].literal || !tableName.MatchString(words[at].text) {
		return "", "", false
	}
	if strings.TrimSpace(statement[words[at-1].end:words[at].from]) != "" || !plainlyOne(statement, words, at, access) {
		return "", "", false
	}
	for i, w := range words[1:] {
		for _, keyword := range []string{"SELECT", "INSERT", "INTO", "UPDATE", "DELETE", "FROM", "JOIN", "UNION", "EXISTS"} {
			// The one that belongs to the statement stands right before the table.
			if w.is(keyword) && i+1 != at-1 {
				return "", "", false
			}
		}
	}
	return words[at].text, access, true
}

// plainlyOne says whether what follows a table is neither a second one nor more of its name.
func plainlyOne(statement string, words []word, at int, access functionaccess.Access) bool {
	if at+1 == len(words) {
		return strings.TrimSpace(statement[words[at].end:]) == ""
	}
	next := words[at+1]
	between := statement[words[at].end:next.from]
	if access == read && next.quoted && words[at].quoted && between == "." {
		return true // an index
	}
	if between == "" || strings.TrimSpace(between) != "" {
		return false
	}
	for _, keyword := range []string{"WHERE", "ORDER", "VALUE", "SET", "REMOVE", "RETURNING"} {
		if next.is(keyword) {
			return true
		}
	}
	return false
}

// word is one of a statement: a name, a keyword, a quoted name or a literal. Other characters are none.
type word struct {
	text            string
	quoted, literal bool
	// from and end are where it stands in the statement.
	from, end int
}

func (w word) is(keyword string) bool {
	return !w.quoted && !w.literal && strings.EqualFold(w.text, keyword)
}

func wordsOf(statement string) ([]word, bool) {
	var all []word
	if strings.Contains(statement, `\`) {
		return nil, false // parsers may not agree on what it escapes
	}
	for i := 0; i < len(statement); {
		c := statement[i]
		switch {
		case c == '\'' || c == '"':
			end := strings.IndexByte(statement[i+1:], c)
			if end < 0 || i+end+2 < len(statement) && statement[i+end+2] == c {
				if end < 0 || c == '"' {
					return nil, false // open, or with a quotation mark in a name
				}
				// '' in a literal is one quotation mark: the literal goes on.
			}
			all = append(all, word{statement[i+1 : i+1+end], c == '"', c == '\'', i, i + end + 2})
			i += end + 2
		case letter(c):
			from := i
			for i < len(statement) && (letter(statement[i]) || statement[i] == '-' && i+1 < len(statement) && letter(statement[i+1])) {
				i++
			}
			all = append(all, word{text: statement[from:i], from: from, end: i})
		case c == ';', c >= 0x80, c < ' ' && c != '\n' && c != '\t' && c != '\r', c == '`', strings.HasPrefix(statement[i:], "--"), strings.HasPrefix(statement[i:], "/*"):
			return nil, false
		default:
			i++
		}
	}
	return all, true
}

func letter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}
