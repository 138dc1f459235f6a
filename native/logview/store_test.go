package logview

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	rowOne = `{"_time":"2026-01-02T03:04:05Z","_msg":"one","container_name":"lambda-f-1","level":"INFO"}`
	rowTwo = `{"_time":"2026-01-02T03:04:06Z","_msg":"two","container_name":"gateway","level":"WARN"}`
	rowNew = `{"_time":"2026-01-02T03:04:07Z","_msg":"new","container_name":"lambda-f-2","level":"ERROR"}`
)

// mustStore answers queries with two rows, the newest first, and tails with the newest of them and one more.
func mustStore(t *testing.T) Store {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user+password != "mesecret" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		switch {
		case r.PostFormValue("query") == "bad(":
			http.Error(w, "cannot parse query", http.StatusBadRequest)
		case strings.Contains(r.PostFormValue("query"), "count"):
			_, _ = io.WriteString(w, `{"n":"7"}`+"\n")
		case r.URL.Path == "/select/logsql/query" && r.PostFormValue("limit") == "5":
			_, _ = io.WriteString(w, rowTwo+"\n"+rowOne+"\n")
		case r.URL.Path == "/select/logsql/tail":
			if r.PostFormValue("extra_filters") == `container_name:in("f") OR (job:=lambda function:in("f"))` {
				_, _ = io.WriteString(w, rowTwo+"\n"+rowNew+"\n")
			}
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	return Store{URL: server.URL + "/", User: "me", Password: "secret"}
}

func TestSearch_RowsInTheOrderOfTime_OtherShapesAsTheyAre(t *testing.T) {
	store := mustStore(t)
	var out bytes.Buffer
	require.NoError(t, store.Search(t.Context(), &out, "", Options{Lines: 5}))
	assert.Equal(t, "lambda-f-1 | 2026-01-02T03:04:05Z INFO  one\ngateway | 2026-01-02T03:04:06Z WARN  two\n", out.String())
	out.Reset()
	require.NoError(t, store.Search(t.Context(), &out, "* | count() n", Options{Lines: 5}))
	assert.Equal(t, `{"n":"7"}`+"\n", out.String())
}

func TestSearch_Follow_GoesOnWithoutRepeating(t *testing.T) {
	store := mustStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out screen
	done := make(chan error, 1)
	go func() { done <- store.Search(ctx, &out, "", Options{Lines: 5, Names: []string{"f"}, Follow: true}) }()
	require.Eventually(t, func() bool { return strings.HasSuffix(out.String(), "lambda-f-2 | 2026-01-02T03:04:07Z ERROR new\n") }, 30*time.Second, 10*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	assert.Equal(t, 1, strings.Count(out.String(), "two"))
}

func TestSearch_Fails_SaysWhy(t *testing.T) {
	store := mustStore(t)
	assert.ErrorContains(t, store.Search(t.Context(), io.Discard, "bad(", Options{}), "cannot parse query")
	assert.ErrorContains(t, Store{URL: store.URL}.Search(t.Context(), io.Discard, "", Options{}), "401")
	assert.ErrorContains(t, Store{}.Search(t.Context(), io.Discard, "", Options{}), "VICTORIALOGS_URL")
}
