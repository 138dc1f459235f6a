package lambdainit_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent/lambdainit"
)

func TestWorker_Port_IsNobodyElses(t *testing.T) {
	b := mustOpenBox(t)
	address := strings.TrimPrefix(b.url, "http://")
	for _, id := range []string{"first", "after a reset"} {
		id = strings.ReplaceAll(id, " ", "-")
		got := b.invoke(id, order{Do: "listen", Text: address}).reply(t)
		require.Len(t, got.Notes, 12)
		for _, note := range got.Notes {
			assert.Contains(t, note, "refused")
		}
		assert.Equal(t, `{"state":"idle"}`, b.health(), "lambda-init still answers there")
		b.invoke(id+"-end", order{Do: "exit", N: 1})
	}
}

// elf makes the beginning of a 64-bit program that needs an interpreter.
func elf(machine uint16, interpreter string) string {
	b := make([]byte, 128)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint32(b[64:], 3) // PT_INTERP
	le.PutUint64(b[64+8:], 120)
	name := interpreter + "\x00"
	le.PutUint64(b[64+32:], uint64(len(name)))
	return string(b[:120]) + name
}

func TestInit_ProgramThatCannotStart_IsToldWhy(t *testing.T) {
	machine := map[string]uint16{"amd64": 62, "arm64": 183}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	require.NotEmpty(t, other)
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"no interpreter":  {"#!/no/such/sh -e\necho\n", 0o755, "no such file or directory: it needs /no/such/sh, which is not there"},
		"windows":         {"#!/bin/sh\r\necho\r\n", 0o755, `no such file or directory: its first line ends with CR LF, so that the kernel looks for an interpreter /bin/sh\r: save it`},
		"folder as":       {"#! /tmp\n", 0o755, "permission denied: it needs /tmp, which may not be executed"},
		"no first line":   {"echo\n", 0o755, `exec format error: it is no program for Linux, and no script either`},
		"byte order mark": {"\xef\xbb\xbf#!/bin/sh\n", 0o755, "exec format error: it begins with a byte order mark"},
		"empty":           {"", 0o755, "exec format error: it is empty"},
		"nothing named":   {"#!\n", 0o755, `exec format error: its first line names no interpreter`},
		"other machine":   {elf(machine[other], "/lib/ld.so"), 0o755, "exec format error: it is built for " + other + ", and this box is " + runtime.GOARCH},
		"other C library": {elf(machine[runtime.GOARCH], "/lib/ld-musl-none.so.1"), 0o755, "no such file or directory: it needs /lib/ld-musl-none.so.1, which is not there"},
		"cut off":         {elf(machine[runtime.GOARCH], "")[:40], 0o755, "it is a part of a program"},
		"not executable":  {"#!/bin/sh\n", 0o644, "permission denied: its mode lacks the executable bit"},
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "bootstrap")
			require.NoError(t, os.WriteFile(program, []byte(c.content), c.mode))
			r := mustOpenBox(t, withCommand(program)).invoke("req-1", order{})
			var failure struct{ ErrorType, ErrorMessage string }
			require.NoError(t, json.Unmarshal([]byte(r.Body), &failure), r.Body)
			assert.Equal(t, "Runtime.InvalidEntrypoint", failure.ErrorType)
			assert.Contains(t, failure.ErrorMessage, "RequestId: req-1 Error: fork/exec "+program+": ")
			assert.Contains(t, failure.ErrorMessage, c.want)
		})
	}
	t.Run("link to nowhere", func(t *testing.T) {
		program := filepath.Join(t.TempDir(), "bootstrap")
		require.NoError(t, os.Symlink("/no/such/target", program))
		assert.Contains(t, mustOpenBox(t, withCommand(program)).invoke("r", order{}).Body, "it is a link to /no/such/target, which is not there")
	})
	t.Run("pipe", func(t *testing.T) {
		program := filepath.Join(t.TempDir(), "bootstrap")
		require.NoError(t, syscall.Mkfifo(program, 0o755))
		assert.Contains(t, mustOpenBox(t, withCommand(program)).invoke("r", order{}).Body, "permission denied: it is no file")
	})
	t.Run("folder", func(t *testing.T) {
		assert.Contains(t, mustOpenBox(t, withCommand("/tmp")).invoke("r", order{}).Body, "permission denied: it is a folder")
	})
}

func TestExtension_ThatCannotStart_IsToldWhy(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "watcher"), []byte("#!/no/such/node\n"), 0o755))
	b := mustOpenBox(t, withEnv("ESB_INIT_EXTENSIONS="+dir))
	r := b.invoke("req-1", order{})
	assert.Contains(t, r.Body, `"errorType":"Extension.LaunchError"`)
	assert.Contains(t, r.Body, "it needs /no/such/node, which is not there")
}

func TestWrapper_StartsTheRuntime(t *testing.T) {
	dir := t.TempDir()
	wrapper := filepath.Join(dir, "wrapper")
	require.NoError(t, os.WriteFile(wrapper, []byte("#!/bin/sh\nexport WRAPPED=\"$#\"\nexec \"$@\"\n"), 0o755))
	b := mustOpenBox(t, withEnv("ESB_INIT_WRAPPER=1", "AWS_LAMBDA_EXEC_WRAPPER="+wrapper))
	got := b.invoke("req-1", order{Do: "echo"}).reply(t)
	assert.Contains(t, got.Env, "WRAPPED=3", "it gets the runtime's command")
	assert.Contains(t, got.Env, "AWS_LAMBDA_EXEC_WRAPPER="+wrapper, "the variable stays")

	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		line    string
		status  int
	}{
		"missing":        {"", 0, ": does not exist", 127},
		"not executable": {"#!/bin/sh\n", 0o644, ": is not an executable", 126},
		"no interpreter": {"#!/no/such/sh\n", 0o755, "it needs /no/such/sh, which is not there", 127},
		"no program":     {"rubbish", 0o755, "it is no program for Linux", 126},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "wrapper")
			if c.mode != 0 {
				require.NoError(t, os.WriteFile(file, []byte(c.content), c.mode))
			}
			b := mustOpenBox(t, withEnv("ESB_INIT_WRAPPER=1", "AWS_LAMBDA_EXEC_WRAPPER="+file))
			for _, id := range []string{"req-1", "req-2"} {
				r := b.invoke(id, order{Do: "echo"})
				assert.JSONEq(t, fmt.Sprintf(`{"errorType":"Runtime.ExitError","errorMessage":"RequestId: %s Error: Runtime exited with error: exit status %d"}`, id, c.status), r.Body)
				assert.Equal(t, "init", r.Header.Get("X-Esb-Sandbox-Reset"))
			}
			assert.Contains(t, b.waitLine("function", c.line).Message, file)
		})
	}
}

func TestWrapper_IsForManagedRuntimesAlone(t *testing.T) {
	b := mustOpenBox(t, withEnv("AWS_LAMBDA_EXEC_WRAPPER=/no/such/wrapper"))
	assert.Contains(t, b.invoke("req-1", order{Do: "echo"}).reply(t).Env, "AWS_LAMBDA_EXEC_WRAPPER=/no/such/wrapper", "a bootstrap does it itself")
}

func TestConfigFromEnv_Home(t *testing.T) {
	for setting, want := range map[string][]string{"": {"HOME=/x"}, "keep": {"HOME=/x"}, "none": nil, "user": {"HOME=/"}} {
		c, err := lambdainit.ConfigFromEnv([]string{"HOME=/x", "ESB_INIT_HOME=" + setting, "ESB_INIT_USER=54321:1"}, []string{"/bootstrap"})
		require.NoError(t, err)
		if want == nil {
			assert.Empty(t, c.Env, setting)
		} else {
			assert.Equal(t, want, c.Env, setting)
		}
	}
	_, err := lambdainit.ConfigFromEnv([]string{"ESB_INIT_HOME=1"}, []string{"/bootstrap"})
	assert.ErrorContains(t, err, "ESB_INIT_HOME: must be keep, none or user")
}
