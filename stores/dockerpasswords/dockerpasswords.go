// Package dockerpasswords makes the passwords of the stores that Docker runs from images of others: VictoriaLogs and the
// registry read them from files of a volume, as the agent does.
package dockerpasswords

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/guard/wholefile"
)

// Files of the folder.
const (
	// Logs is the password of VictoriaLogs.
	Logs = "logs.password"
	// LogsAdmin is the key of what VictoriaLogs serves beyond queries and inserts; nobody uses it.
	LogsAdmin = "logs.admin"
	// Registry is the password of the registry, and Htpasswd the same as the registry reads it.
	Registry = "registry.password"
	Htpasswd = "registry.htpasswd"
)

// longEnough is the length from which a password cannot be guessed, however fast: it needs no slow digest then, which
// the registry would make with every request.
const longEnough = 32

// Keep makes what is not there in the folder. Passwords that are set (VICTORIALOGS_PASSWORD, ESB_REGISTRY_PASSWORD) take the
// place of those that were made. getenv is usually os.Getenv.
func Keep(dir string, getenv func(string) string) error {
	if _, err := keep(filepath.Join(dir, Logs), getenv("VICTORIALOGS_PASSWORD")); err != nil {
		return err
	}
	if _, err := keep(filepath.Join(dir, LogsAdmin), ""); err != nil {
		return err
	}
	password, err := keep(filepath.Join(dir, Registry), getenv("ESB_REGISTRY_PASSWORD"))
	if err != nil {
		return err
	}
	user := strings.TrimSpace(getenv("ESB_REGISTRY_USER"))
	if user == "" {
		user = "esb"
	}
	return keepHtpasswd(filepath.Join(dir, Htpasswd), user, password)
}

// keep returns the secret of a file, which it makes, or which is the one that is set.
func keep(path, set string) (string, error) {
	if set = strings.TrimSpace(set); set == "" {
		return secretfile.Open(path)
	}
	if kept, err := secretfile.Read(path); err == nil && kept == set {
		return set, nil
	}
	return set, replace(path, set+"\n")
}

func keepHtpasswd(path, user, password string) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the registry's passwords: %w", err)
	}
	if name, digest, ok := strings.Cut(strings.TrimSpace(string(text)), ":"); ok && name == user && bcrypt.CompareHashAndPassword([]byte(digest), []byte(password)) == nil {
		return nil
	}
	cost := bcrypt.DefaultCost
	if len(password) >= longEnough {
		cost = bcrypt.MinCost
	}
	digest, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		return fmt.Errorf("ESB_REGISTRY_PASSWORD: %w", err)
	}
	return replace(path, user+":"+string(digest)+"\n")
}

// replace writes a file, readable by its owner alone, whole or not at all.
func replace(path, text string) error {
	if err := wholefile.Write(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("keep a password: %w", err)
	}
	return nil
}
