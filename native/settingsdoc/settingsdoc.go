// Package settingsdoc makes docs/settings.md of the doc comments of the settings packages, which are the manual. A setting
// that a package reads and no comment explains is an error, so that the page has them all.
package settingsdoc

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/edge-serverless-box/esb/guard/setting"
)

// Source is a package with settings.
type Source struct {
	// Dir is the package's folder in the repository, whose doc comments are the manual unless there is a Table.
	Dir string
	// Title and Intro head its table.
	Title, Intro string
	// Table is the service whose table in guard/setting has the settings.
	Table setting.Service
}

// Sources are all packages with settings, in the order of the page.
func Sources() []Source {
	return []Source{
		{Dir: "gateway/settings", Title: "gateway", Intro: "The HTTP front door.", Table: setting.Gateway},
		{Dir: "agent/settings", Title: "agent", Intro: "Function containers.", Table: setting.Agent},
		{Dir: "native/settings", Title: "esb up", Intro: "The native way's own command, which hands them on to the services."},
		{Dir: "stores/settings", Title: "stores", Intro: "The native way's S3, DynamoDB API, VictoriaLogs and registry.", Table: setting.Stores},
		{Dir: "stores/dockerrelay", Title: "relay", Intro: "Offers the stores to functions where Docker runs the stores.", Table: setting.Relay},
	}
}

// Setting is one entry of a table.
type Setting struct {
	// Variables are the environment variables that the entry explains.
	Variables []string
	// Default is empty when the text says it.
	Default, What string
}

const header = `# Settings

All settings are environment variables; for ` + "`go tool task`" + ` and Docker Compose also lines of a file .env. An empty variable counts as unset.
What is wrong is refused at the start, with the variable's name; a name that is almost one of these is named in the log of the services and by ` + "`up`" + `. This page is made of the code by ` + "`go tool task docs`" + `.
`

// Page returns the page for the repository at root.
func Page(root string, sources []Source) (string, error) {
	var b strings.Builder
	b.WriteString(header)
	explained, read := make(map[string]bool), make(map[string]token.Position)
	for _, s := range sources {
		if s.Table != "" {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| variable | default | what |\n|---|---|---|\n", s.Title, s.Intro)
			for _, e := range setting.Of(s.Table) {
				for _, v := range e.Variables() {
					explained[v] = true
				}
				fmt.Fprintf(&b, "| %s | %s | %s |\n", "`"+strings.Join(e.Variables(), "`, `")+"`", cell(spans(e.Defaults())), cell(spans(e.Manual())))
			}
			continue
		}
		p, err := parse(filepath.Join(root, s.Dir))
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.Dir, err)
		}
		settings := p.settings()
		if len(settings) == 0 {
			return "", fmt.Errorf("%s: no doc comment of a field explains a setting", s.Dir)
		}
		maps.Copy(read, p.read)
		for _, e := range settings {
			for _, v := range e.Variables {
				explained[v] = true
			}
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s The manual in the code: [%s](../%s).\n\n| variable | default | what |\n|---|---|---|\n", s.Title, s.Intro, s.Dir, s.Dir)
		for _, e := range settings {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", "`"+strings.Join(e.Variables, "`, `")+"`", cell(e.Default), cell(e.What))
		}
	}
	var errs []error
	for _, v := range slices.Sorted(maps.Keys(read)) {
		if !explained[v] {
			errs = append(errs, fmt.Errorf("%s: %s is read and no doc comment of a field explains it: write \"Name (%s, default x) is ...\" or \"Name is .... %s; default x.\"", read[v], v, v, v))
		}
	}
	return b.String(), errors.Join(errs...)
}

// Names returns the names of all settings, one a line and in order, for guard/settingnames.
func Names(root string, sources []Source) (string, error) {
	all := make(map[string]bool)
	for _, s := range sources {
		for _, e := range setting.Of(s.Table) {
			for _, name := range e.Variables() {
				all[name] = true
			}
		}
		if s.Table != "" {
			continue
		}
		p, err := parse(filepath.Join(root, s.Dir))
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.Dir, err)
		}
		for name := range p.read {
			all[name] = true
		}
		for _, e := range p.settings() {
			for _, name := range e.Variables {
				all[name] = true
			}
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(all)), "\n") + "\n", nil
}

// spans marks the names of settings as code, except in a path such as <ESB_HOME>/data.
func spans(text string) string {
	names := setting.Names()
	var b strings.Builder
	for text != "" {
		n := strings.IndexFunc(text, func(r rune) bool { return !nameRune(r) })
		if n < 0 {
			n = len(text)
		}
		word := text[:n]
		if slices.Contains(names, word) && !strings.HasSuffix(b.String(), "<") && !strings.HasSuffix(b.String(), "`") && !strings.HasPrefix(text[n:], "=") {
			word = "`" + word + "`"
		}
		b.WriteString(word)
		text = text[n:]
		n = strings.IndexFunc(text, nameRune)
		if n < 0 {
			n = len(text)
		}
		b.WriteString(text[:n])
		text = text[n:]
	}
	return b.String()
}

func nameRune(r rune) bool {
	return r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
}

// cell escapes what would end a cell or be taken for HTML.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;").Replace(text)
}

// pkg is what is known about a package.
type pkg struct {
	// constants of text, by name.
	constants map[string]string
	// read are the variables that the code asks for by name.
	read map[string]token.Position
	// fields are the comments of struct fields in the order of the code, and the names of the fields.
	fields []field
}

type field struct {
	names   []string
	comment string
}

// settings returns the entries of the package.
func (p *pkg) settings() []Setting {
	names := make(map[string]string) // of fields, to their variables
	for _, f := range p.fields {
		variables := defined(f.comment)
		for i, name := range f.names {
			if len(variables) > 0 && len(f.names) <= len(variables) && (composed(name) || name == "Home") {
				names[name] = variables[min(i, len(variables)-1)]
			}
		}
	}
	var settings []Setting
	for _, f := range p.fields {
		if s, ok := p.setting(f, names); ok {
			settings = append(settings, s)
		}
	}
	return settings
}

func parse(dir string) (*pkg, error) {
	p := &pkg{constants: make(map[string]string), read: make(map[string]token.Position)}
	files := token.NewFileSet()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".go" || strings.HasSuffix(e.Name(), "_test.go") || e.Type()&fs.ModeType != 0 {
			continue
		}
		file, err := parser.ParseFile(files, filepath.Join(dir, e.Name()), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if i < len(n.Values) {
						if text, ok := literal(n.Values[i]); ok {
							p.constants[name.Name] = text
						}
					}
				}
			case *ast.StructType:
				for _, f := range n.Fields.List {
					var names []string
					for _, name := range f.Names {
						names = append(names, name.Name)
					}
					p.fields = append(p.fields, field{names, strings.Join(strings.Fields(f.Doc.Text()), " ")})
				}
			case *ast.CallExpr:
				if len(n.Args) > 0 && !complains(n.Fun) {
					if name, ok := literal(n.Args[0]); ok && wholeVariable.MatchString(name) {
						p.read[name] = files.Position(n.Pos())
					}
				}
			}
			return true
		})
	}
	return p, nil
}

// complains says whether a function only names a variable in an error.
func complains(fun ast.Expr) bool {
	name := ""
	switch fun := fun.(type) {
	case *ast.SelectorExpr:
		name = fun.Sel.Name
	case *ast.Ident:
		name = fun.Name
	}
	return slices.Contains([]string{"problemf", "fail", "failed", "bad", "Errorf", "claim"}, name)
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

const variable = `[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+`

var (
	wholeVariable = regexp.MustCompile(`^` + variable + `$`)
	anyVariable   = regexp.MustCompile(variable)
	// inParentheses is "Name (VARIABLE, default x)", with more variables maybe.
	inParentheses = regexp.MustCompile(`(?:\w+(?:,| and) )*\w+ \((` + variable + `(?:, ` + variable + `)*)([,;:]? ?[^()]*)\)`)
	// asSentence is "VARIABLE, a number; default x.", with more variables maybe.
	asSentence = regexp.MustCompile(`(?:^|[.] )(` + variable + `(?:(?:, | and |; )` + variable + `)*)((?:[,;:] (?:[^.]|[.]\S)*)?[.])(?: |$)`)
	andOthers  = regexp.MustCompile(`^(?:(?:and |, )[A-Z]\w+ )+`)
	aDefault   = regexp.MustCompile(`[,;:]? ?\bdefaults? (.*)$`)
	// defaultSentence is "Default: x."
	defaultSentence = regexp.MustCompile(` ?\bDefaults?: ((?:[^.]|[.]\S)*)[.](?: |$)`)
)

// defined returns the variables that a comment explains.
func defined(comment string) []string {
	var all []string
	for _, m := range inParentheses.FindAllStringSubmatch(comment, -1) {
		all = append(all, anyVariable.FindAllString(m[1], -1)...)
	}
	for _, m := range asSentence.FindAllStringSubmatch(comment, -1) {
		all = append(all, anyVariable.FindAllString(m[1], -1)...)
	}
	return all
}

// setting makes an entry of a field's comment, if it explains a variable.
func (p *pkg) setting(f field, names map[string]string) (Setting, bool) {
	s := Setting{Variables: defined(f.comment)}
	if len(s.Variables) == 0 {
		return s, false
	}
	var defaults, forms []string
	text := f.comment
	take := func(rest string) {
		rest = strings.Trim(rest, ",;: ")
		if m := aDefault.FindStringSubmatchIndex(rest); m != nil {
			defaults = append(defaults, strings.Trim(rest[m[2]:m[3]], " "))
			rest = strings.Trim(rest[:m[0]], ",;: ")
		}
		if rest != "" {
			forms = append(forms, rest)
		}
	}
	matches := inParentheses.FindAllStringSubmatch(text, -1)
	if len(matches) == 1 && strings.HasPrefix(text, matches[0][0]) {
		take(matches[0][2])
		text = strings.TrimPrefix(text, matches[0][0])
	} else {
		text = inParentheses.ReplaceAllStringFunc(text, func(match string) string {
			m := inParentheses.FindStringSubmatch(match)
			take(m[2])
			return "`" + strings.ReplaceAll(m[1], ", ", "`, `") + "`"
		})
		for _, name := range f.names {
			text = strings.TrimPrefix(text, name+" ")
		}
		// "and Other are": the next field, which the comment is for as well.
		text = andOthers.ReplaceAllString(text, "")
	}
	text = asSentence.ReplaceAllStringFunc(text, func(match string) string {
		m := asSentence.FindStringSubmatch(match)
		take(strings.TrimSuffix(m[2], "."))
		if strings.HasPrefix(match, ". ") {
			return ". "
		}
		return ""
	})
	for _, m := range defaultSentence.FindAllStringSubmatch(text, -1) {
		defaults = append(defaults, m[1])
	}
	text = defaultSentence.ReplaceAllString(text, " ")
	s.Default = p.resolve(strings.Join(defaults, "; "), names)
	s.What = p.resolve(sentence(text), names)
	if len(forms) > 0 {
		s.What = strings.TrimSpace(s.What + " (" + p.resolve(strings.Join(forms, "; "), names) + ")")
	}
	return s, true
}

// sentence makes of the rest of a comment, "is the folder of ...", a text that can stand alone.
func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	text = strings.TrimLeft(text, ".,;: ")
	for _, verb := range []string{"is ", "are ", "says that "} {
		if rest, ok := strings.CutPrefix(text, verb); ok {
			text = rest
			break
		}
	}
	if text == "" {
		return ""
	}
	return string(unicode.ToUpper(rune(text[0]))) + text[1:]
}

var word = regexp.MustCompile("`[^`]*`|[A-Za-z0-9_]+")

// resolve puts variables in the place of fields, and values in that of constants.
func (p *pkg) resolve(text string, names map[string]string) string {
	text = strings.ReplaceAll(text, ", see there", "")
	return word.ReplaceAllStringFunc(text, func(w string) string {
		if value, ok := p.constants[w]; ok && composed(w) {
			return `"` + value + `"`
		}
		if v, ok := names[w]; ok {
			return "`" + v + "`"
		}
		return w
	})
}

// composed says whether a name has a capital after a small letter or is otherwise no English word.
func composed(name string) bool {
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			return true
		}
	}
	return false
}
