// Command esb-settings writes docs/settings.md, and the lists of settings in the Compose files, of the tables in guard/setting; or
// with -check says whether they are current. It is run in the repository.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/edge-serverless-box/esb/native/settingsdoc"
)

// composeFile is the one that the other runs inside of its container.
const composeFile = "docker-compose.yml"

func main() {
	check := flag.Bool("check", false, "write nothing; exit code 1 when a file is not current")
	root := flag.String("root", ".", "folder of the repository")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "esb-settings:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	errs := []error{bring(root, filepath.Join("docs", "settings.md"), settingsdoc.Page(), check)}
	for _, file := range []string{composeFile, "docker-compose.dind.yml"} {
		text, err := settingsdoc.Compose(root, file, composeFile)
		if err != nil {
			return err
		}
		errs = append(errs, bring(root, file, text, check))
	}
	return errors.Join(errs...)
}

// bring writes a file, or checks that it is what it should be.
func bring(root, name, want string, check bool) error {
	path := filepath.Join(root, name)
	if !check {
		return os.WriteFile(path, []byte(want), 0o644)
	}
	if old, err := os.ReadFile(path); err != nil || string(old) != want {
		return errors.Join(err, fmt.Errorf("%s is not what the tables in guard/setting say: run 'go tool task docs' and commit what it changes", name))
	}
	return nil
}
