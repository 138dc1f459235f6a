package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// RunTests runs the tests of a package in a box that they share, for TestMain, and returns the code to exit with. prepare makes the
// box (Prepare) with its state in the new folder home; run is called while the box is up. The folder is kept when the tests fail.
func RunTests(name string, prepare func(root, home string) (*Stack, error), run func(ctx context.Context) (code int, err error)) int {
	code, err := runTests(name, prepare, run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func runTests(name string, prepare func(root, home string) (*Stack, error), run func(ctx context.Context) (code int, err error)) (code int, err error) {
	if os.Getuid() != 0 {
		return 1, errors.New("these tests start containers: run them as root")
	}
	root, err := RepositoryRoot()
	if err != nil {
		return 1, err
	}
	home, err := os.MkdirTemp("", "esb-"+name+"-")
	if err != nil {
		return 1, err
	}
	defer func() {
		if code == 0 && err == nil {
			_ = os.RemoveAll(home)
		} else {
			fmt.Fprintln(os.Stderr, "the state of the box is kept in", home)
		}
	}()
	box, err := prepare(root, home)
	if err != nil {
		return 1, err
	}
	defer func() {
		if downErr := box.Down(); downErr != nil && err == nil {
			err = downErr
		}
	}()
	ctx := context.Background()
	if err := box.Up(ctx); err != nil {
		return 1, err
	}
	return run(ctx)
}
