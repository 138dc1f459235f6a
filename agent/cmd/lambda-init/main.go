// Command lambda-init is process 1 of a function container (docs/lambda-init.md).
//
//	lambda-init -- <program> [argument...]
//	lambda-init -exec -- <program> [argument...]
//	lambda-init -park <socket>
//
// The second runs the program with the container's limits and writes its log, for images that bring the Runtime Interface Emulator. The
// third waits until the agent says, over that socket, which of the others it is, in which environment and folder.
// It is set up by environment variables alone; lambdainit.Config names them.
package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/edge-serverless-box/esb/agent/lambdainit"
	"github.com/edge-serverless-box/esb/guard/timeslice"
)

// lastWords is how long lambda-init lives after it has said why it cannot go on. Of a process that ends as soon as it was started
// containerd's shim can lose the output on a busy machine (two of three tries with both CPUs busy; none of three with this pause).
const lastWords = 200 * time.Millisecond

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lambda-init:", err)
		time.Sleep(lastWords)
		os.Exit(1)
	}
}

func run() error {
	// The environment is the function's: its GOMAXPROCS, GOGC and GOMEMLIMIT are not meant for this process.
	//
	// One invocation goes from one goroutine to another and back: with one thread to run them they need not wake
	// each other across CPUs (BenchmarkInvoke_Warm: -20 % and more). The heap is a few hundred kB at most, so that
	// a small headroom saves memory in every container and costs next to nothing.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(math.MaxInt64)
	// The function's processes inherit it. Where it is forbidden they take their turns as everybody else does.
	_ = timeslice.Shorten(timeslice.Short)

	command, environ := os.Args[1:], os.Environ()
	var ahead *lambdainit.Ahead
	if len(command) == 2 && command[0] == "-park" {
		call, err := lambdainit.Park(command[1])
		if err != nil || call == nil {
			return err
		}
		command, environ, ahead = call.Args, call.Env, call.Ahead()
	} else if err := lambdainit.EnterTmp(); err != nil {
		return err
	}
	if len(command) > 0 && command[0] == "-exec" {
		status, err := lambdainit.Exec(environ, command[1:], os.Stdout)
		if err == nil && status != 0 {
			os.Exit(status)
		}
		return err
	}
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	cfg, err := lambdainit.ConfigFromEnv(environ, command)
	if err != nil {
		return err
	}
	cfg.Ahead = ahead
	s, err := lambdainit.Open(cfg, os.Stdout)
	if err != nil {
		return err
	}
	return s.Run(context.Background())
}
