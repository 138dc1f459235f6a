package adminapi_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/adminapi"
	"github.com/edge-serverless-box/esb/gateway/async"
)

// fakeQueue remembers what it was asked.
type fakeQueue struct {
	asked string
	err   error
}

func (f *fakeQueue) States(context.Context) ([]async.FunctionState, error) {
	return []async.FunctionState{{Function: "f", Configured: true, Backlog: 1, DeadLetters: 2}}, f.err
}

func (f *fakeQueue) Letters(_ context.Context, function string, after uint64, limit int) ([]async.Letter, uint64, error) {
	f.asked = fmt.Sprint(function, after, limit)
	return []async.Letter{{ID: 7, Function: function, Kind: async.LetterEvent}}, 7, f.err
}

func (f *fakeQueue) Letter(_ context.Context, function string, id uint64) (async.Letter, error) {
	return async.Letter{ID: id, Function: function}, f.err
}

func (f *fakeQueue) Replay(_ context.Context, function string, ids ...uint64) (int, error) {
	f.asked = fmt.Sprint("replay ", function, ids)
	return 3, f.err
}

func (f *fakeQueue) Purge(_ context.Context, function string, ids ...uint64) (int, error) {
	f.asked = fmt.Sprint("purge ", function, ids)
	return 2, f.err
}

func TestAdmin_Async(t *testing.T) {
	q := &fakeQueue{}
	b := mustOpen(t, func(o *adminapi.Options) { o.Async = q })
	gone := fmt.Errorf("f, id 9: %w", async.ErrNoLetter)
	down := gateway.Errorf(gateway.CodeUnavailable, "the queue is full")
	for _, c := range []struct {
		method, path string
		err          error
		status       int
		body, asked  string
	}{
		{"GET", "/async", nil, 200, `{"functions":[{"function":"f","configured":true,"backlog":1,"in_flight":0,"outcomes":0,"dead_letters":2}]}`, ""},
		{"GET", "/async", down, 503, `{"message":"the queue is full"}`, ""},
		{"GET", "/async/f/dead-letters", nil, 200, "", "f0 100"},
		{"GET", "/async/f/dead-letters?after=5&limit=1000", nil, 200, "", "f5 1000"},
		{"GET", "/async/f/dead-letters?limit=1001", nil, 400, `{"message":"limit must be a number from 1 to 1000, got \"1001\""}`, ""},
		{"GET", "/async/f/dead-letters?limt=1", nil, 400, `{"message":"there is no parameter \"limt\" here; there are [\"after\" \"limit\"]"}`, ""},
		{"GET", "/async/f/dead-letters", errors.New("disk"), 500, `{"message":"disk"}`, "f0 100"},
		{"GET", "/async/f/dead-letters/9", nil, 200, "", ""},
		{"GET", "/async/f/dead-letters/9", gone, 404, `{"message":"f, id 9: there is no such dead letter"}`, ""},
		{"GET", "/async/f/dead-letters/x", nil, 400, `{"message":"\"x\" is not the id of a dead letter: it is a number that the list shows"}`, ""},
		{"POST", "/async/f/dead-letters/replay?all=true", nil, 200, `{"replayed":3}`, "replay f[]"},
		{"POST", "/async/f/dead-letters/replay?id=1&id=2", nil, 200, `{"replayed":3}`, "replay f[1 2]"},
		{"POST", "/async/f/dead-letters/replay?all=true", down, 503, `{"message":"the queue is full","replayed":3}`, "replay f[]"},
		{"POST", "/async/f/dead-letters/replay", nil, 400, `{"message":"name the dead letters with id=ID, as often as there are, or say all=true"}`, ""},
		{"DELETE", "/async/f/dead-letters?id=4", nil, 200, `{"purged":2}`, "purge f[4]"},
		{"DELETE", "/async/f/dead-letters?all=true", nil, 200, `{"purged":2}`, "purge f[]"},
		{"DELETE", "/async/f/dead-letters?all=true&id=4", nil, 400, "", ""},
		{"DELETE", "/async/f/dead-letters?all=yes", nil, 400, "", ""},
		{"DELETE", "/async/f/dead-letters?ids=4", nil, 400, "", ""},
		{"DELETE", "/async/f/dead-letters?id=-4", nil, 400, "", ""},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			q.asked, q.err = "", c.err
			got := b.ask(c.method, c.path)
			assert.Equal(t, c.status, got.status, got.body)
			if c.body != "" {
				assert.JSONEq(t, c.body, got.body)
			}
			assert.Equal(t, c.asked, q.asked)
		})
	}
}
