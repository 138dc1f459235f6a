// Command esb-settings writes docs/settings.md, or with -check says whether it is current. It is run in the repository.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/edge-serverless-box/esb/native/settingsdoc"
)

func main() {
	check := flag.Bool("check", false, "write nothing; exit code 1 when the page is not current")
	root := flag.String("root", ".", "folder of the repository")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "esb-settings:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	page, err := settingsdoc.Page(root, settingsdoc.Sources())
	if err != nil {
		return err
	}
	path := filepath.Join(root, "docs", "settings.md")
	if !check {
		return os.WriteFile(path, []byte(page), 0o644)
	}
	if old, err := os.ReadFile(path); err != nil || string(old) != page {
		return errors.Join(err, errors.New("docs/settings.md is not what the doc comments of the settings say: run 'go tool task docs' and commit what it changes"))
	}
	return nil
}
