package main

import (
	"encoding/json"
	"io"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"
)

// waitAhead does what runtime clients do that are started ahead of their function. One that is deaf ends.
func waitAhead() {
	fd, err := strconv.Atoi(os.Getenv("_ESB_WAIT_FD"))
	if err != nil {
		return
	}
	if slices.Contains(os.Args, "deaf") {
		log.Fatal("does not wait")
	}
	control := os.NewFile(uintptr(fd), "control")
	if _, err := control.Write([]byte{'\n'}); err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(control)
	if err != nil || len(text) == 0 {
		log.Fatal("nobody's: ", err)
	}
	_ = control.Close()
	var told struct {
		Args, Env []string
		Cwd       string
	}
	if err := json.Unmarshal(text, &told); err != nil {
		log.Fatal(err)
	}
	os.Clearenv()
	for _, kv := range told.Env {
		name, value, _ := strings.Cut(kv, "=")
		_ = os.Setenv(name, value)
	}
	os.Args = told.Args
	if err := os.Chdir(told.Cwd); err != nil {
		log.Fatal(err)
	}
}
