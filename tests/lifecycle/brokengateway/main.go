// Command brokengateway is a gateway of a release that is no good: it reads the files as a good one does, and does not start.
package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// good is the path of a gateway that is right; the linker sets it.
var good string

func main() {
	err := errors.New("this gateway is broken")
	if len(os.Args) > 1 && os.Args[1] == "check" {
		err = syscall.Exec(good, os.Args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
