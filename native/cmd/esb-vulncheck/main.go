// Command esb-vulncheck checks the programs of the box, as they are built, against Go's vulnerability database. It is run
// in the repository; .ci/vuln builds before it what it needs. Exit code 1 when a program can come to a known fault that
// .ci/vuln-allow.yml does not let pass.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/edge-serverless-box/esb/native/vulncheck"
)

func main() {
	root := flag.String("root", ".", "folder of the repository")
	bin := flag.String("bin", ".esb/bin", "folder of the binaries")
	allow := flag.String("allow", ".ci/vuln-allow.yml", "file of the faults that are let pass")
	flag.Parse()
	if err := run(*root, *bin, *allow); err != nil {
		fmt.Fprintln(os.Stderr, "esb-vulncheck:", err)
		os.Exit(1)
	}
}

func run(root, bin, allow string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	allowed, err := vulncheck.LoadAllowed(allow)
	if err != nil {
		return err
	}
	checker, err := vulncheck.NewChecker(ctx, root)
	if err != nil {
		return err
	}
	programs, others, err := vulncheck.Programs(root, bin)
	if err != nil {
		return err
	}
	var results []vulncheck.Result
	for _, p := range programs {
		result, err := checker.Check(ctx, p)
		if err != nil {
			return err
		}
		results = append(results, result)
	}
	verdict := vulncheck.Decide(checker.Toolchain, results, allowed)
	fmt.Printf("database golang.org/x/vulndb %s; not in Go, and so not checked: %s\n", checker.Database, strings.Join(others, ", "))
	if err := verdict.Print(os.Stdout, results); err != nil {
		return err
	}
	if len(verdict.Failures) > 0 {
		return errors.New("refused:\n  " + strings.Join(verdict.Failures, "\n  "))
	}
	return nil
}
