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
	assert.Equal(t, "2026-01-02 03:04:05.000 INFO  lambda-f-1  one\n2026-01-02 03:04:06.000 WARN  gateway  two\n", out.String())
	out.Reset()
	require.NoError(t, store.Search(t.Context(), &out, "", Options{Lines: 5, JSON: true}))
	assert.Equal(t, rowOne+"\n"+rowTwo+"\n", out.String())
	out.Reset()
	require.NoError(t, store.Search(t.Context(), &out, "* | count() n", Options{Lines: 5}))
	assert.Equal(t, `{"n":"7"}`+"\n", out.String())
}

func TestFilter_NamesAndLevel(t *testing.T) {
	assert.Empty(t, filter(nil, "DEBUG"))
	assert.Equal(t, "level:in(WARN,ERROR)", filter(nil, "WARN"))
	assert.Equal(t, `(container_name:in("f") OR (job:=lambda function:in("f"))) level:in(ERROR)`, filter([]string{"f"}, "ERROR"))
}

func TestSearch_Follow_GoesOnWithoutRepeating(t *testing.T) {
	store := mustStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out screen
	done := make(chan error, 1)
	go func() { done <- store.Search(ctx, &out, "", Options{Lines: 5, Names: []string{"f"}, Follow: true}) }()
	require.Eventually(t, func() bool { return strings.HasSuffix(out.String(), "2026-01-02 03:04:07.000 ERROR lambda-f-2  new\n") }, time.Minute, 10*time.Millisecond)
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
