package config

import (
	"fmt"
	"regexp"
	"strings"
)

// blockText is the end of a line after which a text follows that YAML does not look into.
var blockText = regexp.MustCompile(`(?:^|[:\-?]\s+)(?:[!&]\S+\s+)*[|>][0-9+-]*\s*(?:#.*)?$`)

// level is how far a block is indented, and the last line that was.
type level struct{ column, line int }

// misindented finds the line of a file with broken blocks whose indentation is that of none of them: the parser names the
// line where the block around it begins, which may be far above. It is 0 when there is no such line.
func misindented(data string) (line int, text string) {
	var levels []level
	skip, flow := -1, 0 // indentation of the key of a block text; open brackets
	for i, raw := range strings.Split(data, "\n") {
		raw = strings.TrimRight(raw, "\r")
		rest := strings.TrimLeft(raw, " ")
		column := len(raw) - len(rest)
		if rest == "" || strings.HasPrefix(rest, "#") {
			continue
		}
		if skip >= 0 {
			if column > skip {
				continue
			}
			skip = -1
		}
		if flow > 0 {
			flow += brackets(rest)
			continue
		}
		if rest[0] == '\t' || strings.HasPrefix(rest, "---") || strings.HasPrefix(rest, "...") {
			continue
		}
		var ended level // the innermost block that ends here
		for len(levels) > 0 && levels[len(levels)-1].column > column {
			ended = levels[len(levels)-1]
			levels = levels[:len(levels)-1]
		}
		switch {
		case len(levels) > 0 && levels[len(levels)-1].column == column:
			levels[len(levels)-1].line = i + 1
		case ended.line == 0 || len(levels) == 0 && ended.column == column:
			levels = append(levels, level{column, i + 1})
		default:
			text := fmt.Sprintf("its indentation, %d, is that of no block above: one has %d (line %d)", column, ended.column, ended.line)
			if len(levels) > 0 {
				outer := levels[len(levels)-1]
				text = fmt.Sprintf("its indentation, %d, is that of no block above: they have %d (line %d) and %d (line %d)", column, outer.column, outer.line, ended.column, ended.line)
			}
			return i + 1, text
		}
		// What follows the dash of a list is a block of its own.
		for strings.HasPrefix(rest, "- ") {
			inner := strings.TrimLeft(rest[1:], " ")
			column += len(rest) - len(inner)
			rest = inner
			if _, _, key := strings.Cut(rest+" ", ": "); key || strings.HasPrefix(rest, "- ") {
				levels = append(levels, level{column, i + 1})
			}
		}
		if blockText.MatchString(rest) {
			skip = levels[len(levels)-1].column
		}
		flow = max(0, brackets(rest))
	}
	return 0, ""
}

// brackets is how many more are opened than closed in a line, outside of quotes and comments.
func brackets(line string) int {
	n, quote := 0, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0:
			if c == '\\' && quote == '"' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			if i == 0 || strings.IndexByte(" [{,:", line[i-1]) >= 0 {
				quote = c
			}
		case c == '#' && (i == 0 || line[i-1] == ' '):
			return n
		case c == '[' || c == '{':
			n++
		case c == ']' || c == '}':
			n--
		}
	}
	return n
}

// tabbed finds the first line from one on that is indented with a tab.
func tabbed(data string, line int) (int, string) {
	for i, text := range strings.Split(data, "\n") {
		if i+1 >= line && strings.Contains(text[:len(text)-len(strings.TrimLeft(text, " \t"))], "\t") {
			return i + 1, "it is indented with a tab: YAML wants spaces"
		}
	}
	return 0, ""
}

// deeper explains "mapping values are not allowed in this context" on a line: mostly the one before it is wrong.
func deeper(data string, line int) (int, string) {
	lines := strings.Split(data, "\n")
	if line < 1 || line > len(lines) {
		return 0, ""
	}
	indent := func(s string) int { return len(s) - len(strings.TrimLeft(s, " ")) }
	before := line - 1
	for before > 0 {
		if text := strings.TrimSpace(lines[before-1]); text != "" && !strings.HasPrefix(text, "#") {
			break
		}
		before--
	}
	if before == 0 {
		return 0, ""
	}
	here, there := lines[line-1], lines[before-1]
	text := strings.TrimSpace(there)
	switch {
	case !strings.Contains(text, ": ") && !strings.HasSuffix(text, ":"):
		return before, "it has no colon with a space behind it"
	case strings.HasSuffix(text, ":"):
		return line, "a value with a colon and a space in it must be in quotes"
	case indent(here) > indent(there):
		return line, fmt.Sprintf("its indentation, %d, is deeper than that of line %d, which has a value already", indent(here), before)
	}
	return 0, ""
}
