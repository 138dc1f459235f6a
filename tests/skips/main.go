// Command skips hands on what `go test -json` prints, and turns tests that were skipped into failures, unless their reason
// is in a file of allowed ones. In CI a test that is skipped for want of root or of a program is a test that nobody runs.
//
//	go test -json ./... | skips <file of allowed reasons>
//
// Each line of the file is a part of the reason that the test gives; empty lines and those that begin with # do not count.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go test -json ./... | skips <file of allowed reasons>")
		os.Exit(2)
	}
	refused, err := run(os.Stdin, os.Stdout, os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		os.Exit(1)
	}
	if refused > 0 {
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, file string) (refused int, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read the allowed reasons: %w", err)
	}
	return filter(in, out, reasons(string(text)))
}

func reasons(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}

// event is a line of `go test -json` (go doc cmd/test2json).
type event struct {
	Time    string  `json:",omitempty"`
	Action  string  `json:",omitempty"`
	Package string  `json:",omitempty"`
	Test    string  `json:",omitempty"`
	Elapsed float64 `json:",omitempty"`
	Output  string  `json:",omitempty"`
}

// filter copies events, those of refused skips as failures, and counts these.
func filter(in io.Reader, out io.Writer, allowed []string) (refused int, err error) {
	said := map[string]string{}
	for lines := bufio.NewReader(in); ; {
		line, readErr := lines.ReadBytes('\n')
		var e event
		// What is no event (a compiler's message) is for gotestsum to show.
		if json.Unmarshal(line, &e) == nil && e.Test != "" {
			name := e.Package + "\x00" + e.Test
			switch e.Action {
			case "output":
				said[name] += e.Output
			case "skip":
				if !slices.ContainsFunc(allowed, func(reason string) bool { return strings.Contains(said[name], reason) }) {
					refused++
					line = failure(e)
				}
				delete(said, name)
			case "pass", "fail":
				delete(said, name)
			}
		}
		if _, err := out.Write(line); err != nil {
			return refused, fmt.Errorf("hand on what go test prints: %w", err)
		}
		if errors.Is(readErr, io.EOF) {
			return refused, nil
		}
		if readErr != nil {
			return refused, fmt.Errorf("read what go test prints: %w", readErr)
		}
	}
}

func failure(e event) []byte {
	var b bytes.Buffer
	why := event{Time: e.Time, Action: "output", Package: e.Package, Test: e.Test,
		Output: "    skipped, which CI allows for the reasons in .ci/skips alone\n"}
	e.Action = "fail"
	for _, one := range []event{why, e} {
		// Of strings and numbers: it cannot fail.
		line, _ := json.Marshal(one)
		b.Write(append(line, '\n'))
	}
	return b.Bytes()
}
