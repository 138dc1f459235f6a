// Command brokengateway is a gateway of a release that is no good: it finds nothing wrong with the files, and does not start.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "check" {
		fmt.Println("the files are right")
		return
	}
	fmt.Fprintln(os.Stderr, "this gateway is broken")
	os.Exit(1)
}
