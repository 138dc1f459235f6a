package logview

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxRow bounds one row of an answer.
const maxRow = 4 << 20

// Store is a VictoriaLogs.
type Store struct {
	// URL is its address, such as http://127.0.0.1:9428.
	URL string
	// User and Password for basic authentication; none when User is empty.
	User, Password string
}

// Search is Show with the lines of the store instead of files. query is LogsQL, such as request_id:=1234; empty means
// all lines.
func (s Store) Search(ctx context.Context, w io.Writer, query string, o Options) error {
	if s.URL == "" || s.URL == "off" {
		return errors.New("VICTORIALOGS_URL: no log store is set: give its address, such as http://127.0.0.1:9428")
	}
	if query == "" {
		query = "*"
	}
	form := url.Values{"query": {query}}
	// As a filter of its own, so that the query may have pipes.
	if f := filter(o.Names, o.Level); f != "" {
		form.Set("extra_filters", f)
	}
	var rows [][]byte
	form.Set("limit", strconv.Itoa(o.Lines))
	if err := s.ask(ctx, "query", form, func(row []byte) error {
		rows = append(rows, bytes.Clone(row))
		return nil
	}); err != nil {
		return err
	}
	if strings.Contains(string(bytes.Join(rows, nil)), `"_time"`) {
		slices.SortStableFunc(rows, func(a, b []byte) int { return readEntry(a, "").at.Compare(readEntry(b, "").at) })
	}
	out := bufio.NewWriter(w)
	shown := map[string]bool{}
	for _, row := range rows {
		shown[string(row)] = true
		printRow(out, row, o.JSON)
	}
	if err := out.Flush(); err != nil || !o.Follow {
		return err
	}
	form.Del("limit")
	err := s.ask(ctx, "tail", form, func(row []byte) error {
		// The tail begins some seconds ago.
		if !shown[string(row)] {
			printRow(out, row, o.JSON)
		}
		return out.Flush()
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// filter is the LogsQL for services, containers and functions of these names, and what is at least as grave as level; "" for all.
func filter(names []string, level string) string {
	var grave string
	if at := slices.Index(levels, level); at > 0 {
		grave = "level:in(" + strings.Join(levels[at:], ",") + ")"
	}
	if len(names) == 0 {
		return grave
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	list := strings.Join(quoted, ",")
	whose := "container_name:in(" + list + ") OR (job:=lambda function:in(" + list + "))"
	if grave != "" {
		return "(" + whose + ") " + grave
	}
	return whose
}

// ask hands each row of an answer to row.
func (s Store) ask(ctx context.Context, what string, form url.Values, row func([]byte) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(s.URL, "/")+"/select/logsql/"+what, strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("VICTORIALOGS_URL: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if s.User != "" {
		req.SetBasicAuth(s.User, s.Password)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the log store at %s (VICTORIALOGS_URL): %w", s.URL, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return fmt.Errorf("the log store answered %d: %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	rows := bufio.NewScanner(resp.Body)
	rows.Buffer(nil, maxRow)
	for rows.Scan() {
		if len(rows.Bytes()) == 0 {
			continue
		}
		if err := row(rows.Bytes()); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the log store's answer: %w", err)
	}
	return nil
}

func printRow(out io.Writer, row []byte, asJSON bool) {
	e := readEntry(row, "")
	if e.at.IsZero() || e.name == "" {
		asJSON = true // what a pipe such as count() makes
	}
	e.write(out, asJSON)
}
