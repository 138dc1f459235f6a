// Package statefile is for the small files of JSON in which a program of the box keeps something for its next start, or for another
// program. Each says the version of its form, so that a program that is older than the file refuses it with a word, instead of taking
// half of it for the whole.
package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/edge-serverless-box/esb/guard/wholefile"
)

// versionKey is the member with the version.
const versionKey = "version"

// Form is the form of a file. A file of before forms had versions has none, and counts as version 1.
//
// The version is raised when an older program must not read what a newer one writes. Members that are new beside the others need no
// new version: readers pass over what they do not know, so that the programs of before an upgrade can be put back.
type Form struct {
	// Version is the newest that this program understands, and the one that it writes.
	Version int
	// Lost says what is lost with a file that is moved away, as a sentence.
	Lost string
	// Texts says that all members are texts, and the version is one, too: programs of before there were versions read nothing else.
	Texts bool
}

// Error is a file that is of no use. It names the file and what to do.
type Error struct {
	// Path is empty when the content came from elsewhere.
	Path string
	// Version is that of a file that is too new, 0 for one that is damaged.
	Version int
	// Damage is what is wrong with one that is damaged.
	Damage error

	form Form
}

// Newer says whether a newer esb has written the file: it is as it should be, and not for this program.
func (e *Error) Newer() bool { return e.Version > 0 }

// What says what is wrong.
func (e *Error) What() string {
	path := e.Path
	if path == "" {
		path = "a file of state"
	}
	if e.Newer() {
		return fmt.Sprintf("%s is of version %d, which a newer esb has written; this one understands version %d at most", path, e.Version, e.form.Version)
	}
	return fmt.Sprintf("%s is damaged: %v", path, e.Damage)
}

// Cure says what a person can do.
func (e *Error) Cure() string {
	if e.Newer() {
		return "Use the newer esb again, or move the file away. " + e.form.Lost
	}
	return "Move the file away. " + e.form.Lost
}

// Error implements error.
func (e *Error) Error() string { return e.What() + ". " + e.Cure() }

// Unwrap returns the damage.
func (e *Error) Unwrap() error { return e.Damage }

// Read reads a file into what a pointer leads to. The error is fs.ErrNotExist where there is no file, and an Error where it is of no use.
func (f Form) Read(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := f.Decode(data, into); err != nil {
		var useless *Error
		if errors.As(err, &useless) {
			useless.Path = path
		}
		return err
	}
	return nil
}

// VersionIn returns the version that the content of the file at path says.
func (f Form) VersionIn(path string, data []byte) (int, error) {
	var content json.RawMessage
	if err := f.Decode(data, &content); err != nil {
		var useless *Error
		if errors.As(err, &useless) {
			useless.Path = path
			return useless.Version, err
		}
		return 0, err
	}
	return version(data)
}

// Decode is Read of what has been read already.
func (f Form) Decode(data []byte, into any) error {
	has, err := version(data)
	switch {
	case err != nil:
		return &Error{Damage: err, form: f}
	case has > f.Version:
		return &Error{Version: has, form: f}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return &Error{Damage: err, form: f}
	}
	if texts, ok := into.(*map[string]string); ok {
		delete(*texts, versionKey)
	}
	return nil
}

// version returns what an object says of its version.
func version(data []byte) (int, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return 0, fmt.Errorf("it is no JSON object: %w", err)
	}
	if object == nil {
		return 0, errors.New("it is no JSON object: null")
	}
	said, ok := object[versionKey]
	if !ok {
		return 1, nil
	}
	n, err := strconv.Atoi(string(bytes.Trim(said, `"`)))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("its version is %s, and no number from 1", said)
	}
	return n, nil
}

// Write replaces a file: the content of before is there, or the new one, and never a part, also after a power cut.
func (f Form) Write(path string, content any, mode os.FileMode) error {
	data, err := f.Encode(content)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return wholefile.Write(path, data, mode)
}

// Encode returns what Write writes: an object with its version first, and a line of its own for each member.
func (f Form) Encode(content any) ([]byte, error) {
	data, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if len(data) == 0 || data[0] != '{' {
		return nil, fmt.Errorf("encode: %T is no JSON object, and has no room for a version", content)
	}
	head := strconv.Itoa(f.Version)
	if f.Texts {
		head = strconv.Quote(head)
	}
	head = `{"` + versionKey + `":` + head
	if !bytes.Equal(data, []byte("{}")) {
		head += ","
	}
	var out bytes.Buffer
	if err := json.Indent(&out, append([]byte(head), data[1:]...), "", "  "); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
