// Package settingsdoc makes docs/settings.md, and the lists of settings in the Compose files, of the tables in guard/setting.
package settingsdoc

import (
	"fmt"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/guard/setting"
)

const header = `# Settings

All settings are environment variables; for ` + "`go tool task`" + ` and Docker Compose also lines of a file .env, in an installation of /etc/esb/esb.env. An empty variable counts as unset.
What is wrong is refused at the start, with the variable's name; a name that is almost one of these is named in the log of the services and by ` + "`up`" + `. This page is made of the tables in [guard/setting](../guard/setting) by ` + "`go tool task docs`" + `.
`

// intro heads the table of a service.
func intro(service setting.Service) string {
	switch service {
	case setting.Gateway:
		return "The HTTP front door."
	case setting.Agent:
		return "Function containers."
	case setting.Native:
		return "The native way's own command, which hands them on to the services."
	case setting.Stores:
		return "The native way's S3, DynamoDB API, VictoriaLogs and registry."
	case setting.Relay:
		return "Offers the stores to functions where Docker runs the stores."
	}
	return ""
}

// Page returns docs/settings.md.
func Page() string {
	var b strings.Builder
	b.WriteString(header)
	names := setting.Names()
	for _, service := range setting.Services() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| variable | default | what |\n|---|---|---|\n", service, intro(service))
		for _, s := range setting.Of(service) {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", "`"+strings.Join(s.Variables(), "`, `")+"`", cell(s.Defaults(), names), cell(s.Manual(), names))
		}
	}
	return b.String()
}

// spans marks the names of settings as code, except in a path such as <ESB_HOME>/data.
func spans(text string, names []string) string {
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

// cell marks names, and escapes what would end a cell or be taken for HTML.
func cell(text string, names []string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;").Replace(spans(text, names))
}
