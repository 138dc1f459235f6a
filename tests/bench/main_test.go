package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/bench/baseline"
	"github.com/edge-serverless-box/esb/tests/bench/measure"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

func TestRun_SaysWhatItDoesNotUnderstand(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"quik"}, `"quik"`},
		{[]string{"quick", "more"}, `"more"`},
		{[]string{"-only", "("}, "-only"},
		{[]string{"-only", "warm", "-readme"}, "-readme"},
		{[]string{"-what"}, "-what"},
	} {
		assert.ErrorContains(t, run(t.Context(), c.args, io.Discard), c.says, "%v", c.args)
	}
}

func TestInstance_OfEachFunctionsAnswer(t *testing.T) {
	for _, answer := range []string{
		`{"success":true,"message":"hello","user":"","instance":"0123456789abcdef","count":1,"request_id":"r"}`,
		`{"statusCode":200,"body":"{\"success\":true,\"message\":\"hello\",\"instance\":\"0123456789abcdef\"}"}`,
		`{"instance": "0123456789abcdef", "message": "hello"}`,
	} {
		process, err := instance([]byte(answer))
		require.NoError(t, err)
		assert.Equal(t, "0123456789abcdef", process)
	}
	for _, answer := range []string{"", `{"message":"hello"}`, `{"instance":"0123456789abcdef","message":"bye"}`} {
		_, err := instance([]byte(answer))
		assert.Error(t, err, answer)
	}
}

func TestConfiguration_HasARouteForEachFunction(t *testing.T) {
	functions, routes := configuration()
	assert.Equal(t, strings.Count(functions, "memory_size"), strings.Count(routes, "path:"))
}

// worker answers in turn as it should, with a wrong answer, and with an error.
func worker(t *testing.T) baseline.Worker {
	t.Helper()
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) % 4 {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			_, _ = fmt.Fprint(w, "{}")
		default:
			_, _ = fmt.Fprint(w, `{"instance":"0123456789abcdef","message":"hello"}`)
		}
	}))
	t.Cleanup(server.Close)
	return baseline.Worker{Addr: strings.TrimPrefix(server.URL, "http://"), ID: "lambda-a"}
}

func TestTarget_WhatFailedIsNoSample(t *testing.T) {
	line, text, err := straight(t.Context(), worker(t))
	require.NoError(t, err)
	defer func() { _ = line.Close() }()
	one := &target{took: measure.Times("straight", measure.Microseconds), line: line, text: text, cpu: []*processor{processorOf("test", os.Getpid())}}
	one.took.Round()
	require.NoError(t, one.ask(t.Context(), 40, one.took))
	one.cpu[0].round(40)
	s, err := one.took.Summary()
	require.NoError(t, err)
	assert.Equal(t, 20, s.N)
	failed := 0
	for _, many := range s.Failed {
		failed += many
	}
	assert.Equal(t, 20, failed)
	assert.Positive(t, one.cpu[0].figure.Value())
}

func TestCrowded_WhatFailedIsNotServed(t *testing.T) {
	w := worker(t)
	c := &crowded{name: "worker", cpu: processorOf("test", os.Getpid()), rate: measure.Values("worker", measure.PerSecond)}
	defer c.close()
	for range 3 {
		line, text, err := straight(t.Context(), w)
		require.NoError(t, err)
		c.lines, c.texts = append(c.lines, line), append(c.texts, text)
	}
	require.NoError(t, c.ask(t.Context(), 50*time.Millisecond, false))
	assert.Empty(t, c.rate.Rounds(), "it does not count")
	require.NoError(t, c.ask(t.Context(), 200*time.Millisecond, true))
	assert.Positive(t, c.rate.Value())
	assert.Positive(t, c.cpu.figure.Failed()["503"])
	assert.Positive(t, c.cpu.figure.Failed()["a wrong answer"])

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	broken, err := traffic.Open(t.Context(), (&net.Dialer{}).DialContext, l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, broken.Close())
	require.NoError(t, l.Close())
	c.lines, c.texts = append(c.lines, broken), append(c.texts, c.texts[0])
	assert.Error(t, c.ask(t.Context(), 10*time.Millisecond, true), "a connection that is gone ends it")
}
