package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/async"
)

// Entries of a page of dead letters.
const (
	defaultPage = 100
	maxPage     = 1000
)

// Queue is the queue of asynchronous invocations as an operator sees it; async.Queue is the one of production.
type Queue interface {
	States(ctx context.Context) ([]async.FunctionState, error)
	Letters(ctx context.Context, function string, after uint64, limit int) (letters []async.Letter, next uint64, err error)
	Letter(ctx context.Context, function string, id uint64) (async.Letter, error)
	Replay(ctx context.Context, function string, ids ...uint64) (int, error)
	Purge(ctx context.Context, function string, ids ...uint64) (int, error)
}

// asyncEndpoints adds the endpoints below /async (docs/async.md).
func asyncEndpoints(e *echo.Echo, q Queue) {
	e.GET("/async", func(c echo.Context) error {
		states, err := q.States(c.Request().Context())
		if err != nil {
			return asyncError(c, err, nil)
		}
		return c.JSON(http.StatusOK, map[string]any{"functions": states})
	})
	e.GET("/async/:function/dead-letters", func(c echo.Context) error {
		query, err := onlyParams(c, "after", "limit")
		if err != nil {
			return badRequest(c, err)
		}
		after, err := number(query, "after", 0, 0, 1<<62)
		if err != nil {
			return badRequest(c, err)
		}
		limit, err := number(query, "limit", defaultPage, 1, maxPage)
		if err != nil {
			return badRequest(c, err)
		}
		letters, next, err := q.Letters(c.Request().Context(), c.Param("function"), after, int(limit))
		if err != nil {
			return asyncError(c, err, nil)
		}
		answer := map[string]any{"dead_letters": letters}
		if next > 0 {
			answer["next"] = next
		}
		return c.JSON(http.StatusOK, answer)
	})
	e.GET("/async/:function/dead-letters/:id", func(c echo.Context) error {
		id, err := strconv.ParseUint(c.Param("id"), 10, 63)
		if err != nil {
			return badRequest(c, fmt.Errorf("%q is not the id of a dead letter: it is a number that the list shows", c.Param("id")))
		}
		letter, err := q.Letter(c.Request().Context(), c.Param("function"), id)
		if err != nil {
			return asyncError(c, err, nil)
		}
		return c.JSON(http.StatusOK, letter)
	})
	e.POST("/async/:function/dead-letters/replay", each(q.Replay, "replayed"))
	e.DELETE("/async/:function/dead-letters", each(q.Purge, "purged"))
}

// each does something with the dead letters that the query names: id=ID, once or more often, or all=true.
func each(do func(ctx context.Context, function string, ids ...uint64) (int, error), done string) echo.HandlerFunc {
	return func(c echo.Context) error {
		query, err := onlyParams(c, "id", "all")
		if err != nil {
			return badRequest(c, err)
		}
		var ids []uint64
		for _, text := range query["id"] {
			id, err := strconv.ParseUint(text, 10, 63)
			if err != nil {
				return badRequest(c, fmt.Errorf("%q is not the id of a dead letter: it is a number that the list shows", text))
			}
			ids = append(ids, id)
		}
		all := query.Get("all")
		if (all != "" && all != "true") || (all == "true") == (len(ids) > 0) {
			return badRequest(c, errors.New("name the dead letters with id=ID, as often as there are, or say all=true"))
		}
		n, err := do(c.Request().Context(), c.Param("function"), ids...)
		if err != nil {
			return asyncError(c, err, map[string]any{done: n})
		}
		return c.JSON(http.StatusOK, map[string]any{done: n})
	}
}

// onlyParams refuses parameters that nothing looks at: a mistyped one must not mean all.
func onlyParams(c echo.Context, known ...string) (url.Values, error) {
	query, err := url.ParseQuery(c.QueryString())
	if err != nil {
		return nil, fmt.Errorf("read the query: %w", err)
	}
	for name := range query {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no parameter %q here; there are %q", name, known)
		}
	}
	return query, nil
}

func number(query url.Values, name string, def, least, most uint64) (uint64, error) {
	text := query.Get(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s must be a number from %d to %d, got %q", name, least, most, text)
	}
	return n, nil
}

func badRequest(c echo.Context, err error) error {
	return c.JSON(http.StatusBadRequest, map[string]string{"message": err.Error()})
}

// asyncError shows an operator an error in full, and what had been done before it.
func asyncError(c echo.Context, err error, done map[string]any) error {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, async.ErrNoLetter):
		status = http.StatusNotFound
	case gateway.ErrorCode(err) == gateway.CodeUnavailable:
		status = http.StatusServiceUnavailable
	}
	answer := map[string]any{"message": err.Error()}
	for k, v := range done {
		answer[k] = v
	}
	return c.JSON(status, answer)
}
