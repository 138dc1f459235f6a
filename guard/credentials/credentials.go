// Package credentials keeps the secrets of a box whose operator has set none: made at its first start, each box its own,
// and kept for ever in one file of lines NAME=value, which a shell and a person can read. NAME is the environment variable
// that sets the secret instead.
package credentials

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/guard/wholefile"
)

// File is the name of the file in the folder of the box's state.
const File = "credentials"

// Secrets of a box, by the variables that set them.
const (
	APIKey     = "X_API_KEY"
	Password   = "AUTH_PASS"
	LambdaKeys = "LAMBDA_ACCESS_KEYS"

	S3AccessKey       = "S3_ACCESS_KEY"
	S3SecretKey       = "S3_SECRET_KEY"
	DynamoDBAccessKey = "DYNAMODB_ACCESS_KEY"
	DynamoDBSecretKey = "DYNAMODB_SECRET_KEY"
)

const header = `# Secrets that this box has made for itself. It keeps them for ever; a variable of the same name, in the environment or in
# .env, is taken instead. Remove a line, and the next start makes another secret.
`

// WellKnown says whether a secret is one that everybody knows who has read the documentation of this software.
func WellKnown(secret string) bool {
	return slices.Contains([]string{"dev-api-key-change-in-production", "onpremise-pass", setting.StoreSecretKey}, secret)
}

// Keep returns the secrets that the file at path holds for names. It makes those that are not there, and the file (mode
// 0600) too, and says which it has made. Any number of programs may do so at once: they all get the same. A file that others
// than its owner may read is an error.
func Keep(path string, names ...string) (kept map[string]string, made []string, err error) {
	all, err := Read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if len(missing(all, names)) > 0 {
		if all, made, err = add(path, names); err != nil {
			return nil, nil, err
		}
	}
	kept = make(map[string]string, len(names))
	for _, name := range names {
		kept[name] = all[name]
	}
	return kept, made, nil
}

// Read returns all secrets that the file holds. The error wraps fs.ErrNotExist when there is none.
func Read(path string) (map[string]string, error) {
	if err := secretfile.Check(path); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the box's secrets: %w", err)
	}
	all := make(map[string]string)
	number := 0
	for line := range bytes.Lines(text) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" || value == "" {
			// The line may be a secret.
			return nil, fmt.Errorf("%s:%d: must be NAME=value: mend the line, or remove it and a new secret is made", path, number)
		}
		all[name] = value
	}
	return all, nil
}

// add makes what names lack, and writes the file whole or not at all.
func add(path string, names []string) (all map[string]string, made []string, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the folder of the box's secrets: %w", err)
	}
	// One program at a time: a lock on the folder leaves no file behind.
	lock, err := os.Open(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("lock the box's secrets: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, nil, fmt.Errorf("lock the box's secrets in %s: %w", dir, err)
	}
	all, err = Read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if all == nil {
		all = make(map[string]string)
	}
	made = missing(all, names)
	if len(made) == 0 && err == nil {
		return all, nil, nil
	}
	for _, name := range made {
		all[name] = secret(name)
	}
	var text bytes.Buffer
	text.WriteString(header)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "%s=%s\n", name, all[name])
	}
	if err := wholefile.Write(path, text.Bytes(), 0o600); err != nil {
		return nil, nil, fmt.Errorf("keep the box's secrets: %w", err)
	}
	return all, made, nil
}

func missing(all map[string]string, names []string) []string {
	var lacking []string
	for _, name := range names {
		if all[name] == "" && !slices.Contains(lacking, name) {
			lacking = append(lacking, name)
		}
	}
	return lacking
}

// secret makes one in the form that its variable wants, of at least 128 random bits, in letters and digits alone: it can be
// pasted anywhere. AWS's access keys have 20 characters, their secrets 40.
func secret(name string) string {
	id := func() string { return "ESB" + rand.Text()[:17] }
	long := func() string { return rand.Text() + rand.Text()[:14] }
	switch {
	case name == LambdaKeys:
		return id() + ":" + long()
	case strings.HasSuffix(name, "_ACCESS_KEY"):
		return id()
	case strings.HasSuffix(name, "_SECRET_KEY"):
		return long()
	}
	return rand.Text()
}
