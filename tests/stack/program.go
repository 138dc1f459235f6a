package stack

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// goBuild builds a static program of the repository, and returns what the Go tool printed where it fails. Tests build the same ones
// again and again: a copy is kept below .esb, which the Go tool leaves alone where it is current and would otherwise link anew.
func goBuild(root, out, pkg string, flags ...string) (said string, err error) {
	sum := sha256.Sum256([]byte(strings.Join(append(flags, pkg), "\x00")))
	kept := filepath.Join(root, ".esb", "tests", hex.EncodeToString(sum[:6]), filepath.Base(pkg))
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return "", err
	}
	// Nobody copies it while another test's process writes it.
	lock, err := os.OpenFile(kept+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-o", kept}, flags...), pkg)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := cmd.CombinedOutput()
	if err != nil {
		return string(text), err
	}
	return "", copyProgram(out, kept)
}

func copyProgram(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	// A new file: the old one may be running.
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		return err
	}
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		_ = target.Close()
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return target.Close()
}
