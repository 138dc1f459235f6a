package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// kindAsync is an asynchronous invocation from 202 to its end. `with`:
//
//	function, payload   what is invoked
//	tries               how often it has to have run, under one request id
//	pause               the wait before the second try, in seconds; before the third it is twice as long
//	busy: "true"        the function's one worker is busy when the event arrives, and its queue takes nothing
//
// record.json is the record that the destination s3://records/<function> has to have got, letter.json the dead letter; without them
// there must be none. {{request_id}} is the event's.
//
// refused.txt are, in place of all that, lines at the end of functions.yml that the box must not take; response.json is what POST /reload answers.
const kindAsync = "async"

// asyncLimit bounds the life of an event.
const asyncLimit = 90 * time.Second

// recordsBucket is the destination of the cases' functions (testdata/functions.yml).
const recordsBucket = "records"

var recordKey = regexp.MustCompile(`^\d{4}/\d\d/\d\d/\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func runAsync(ctx context.Context, b *Box, c *Case) ([]string, error) {
	if c.has(Step{}, "refused.txt") {
		return runRefused(ctx, b, c)
	}
	ctx, cancel := context.WithTimeout(ctx, asyncLimit)
	defer cancel()
	function := c.With["function"]
	if c.With["busy"] == "true" {
		release, err := b.occupy(ctx, function)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	answer, err := b.sign(ctx, function, "Event", c.With["payload"])
	if err != nil {
		return nil, err
	}
	id := answer.Header.Get("x-amzn-RequestId")
	if answer.Status != http.StatusAccepted || len(answer.Body) > 0 || id == "" {
		return []string{fmt.Sprintf("answered %d %q with id %q, want 202 with an empty body", answer.Status, answer.Body, id)}, nil
	}
	// The runs first: an event that was just accepted may not be counted yet, and then there is nothing to settle.
	var all []string
	d, err := c.tries(ctx, b, function, id)
	if all = append(all, d...); err != nil {
		return all, err
	}
	if err := b.settled(ctx, function); err != nil {
		return all, err
	}
	m := &Matcher{Vars: map[string]string{"request_id": id}}
	for k, v := range b.Vars {
		m.Vars[k] = v
	}
	records, err := c.await(ctx, "record.json", func() ([][]byte, error) { return b.records(ctx, function, id) })
	if err != nil {
		return nil, err
	}
	d, err = c.only(m, "record.json", records)
	all = append(all, d...)
	if err != nil {
		return all, err
	}
	letters, err := c.await(ctx, "letter.json", func() ([][]byte, error) { return b.letters(ctx, function, id) })
	if err != nil {
		return all, err
	}
	d, err = c.only(m, "letter.json", letters)
	all = append(all, d...)
	if err != nil || len(all) > 0 {
		return all, err
	}
	// Once more, now that nothing can run any more.
	return c.tries(ctx, b, function, id)
}

// await reads documents, again until there is one when the case has a file for it: an event that was just accepted may
// not be counted in the backlog yet, and then settled finds nothing to wait for.
func (c *Case) await(ctx context.Context, file string, read func() ([][]byte, error)) ([][]byte, error) {
	want, err := c.Read(Step{}, file)
	if err != nil {
		return nil, err
	}
	for {
		documents, err := read()
		if err != nil || want == nil || len(documents) > 0 {
			return documents, err
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// only compares the one document that has to be there, or sees that there is none.
func (c *Case) only(m *Matcher, file string, documents [][]byte) ([]string, error) {
	want, err := c.Read(Step{}, file)
	switch {
	case err != nil:
		return nil, err
	case want == nil && len(documents) == 0:
		return nil, nil
	case want == nil:
		return []string{fmt.Sprintf("%s: got one, want none: %s", file, short(string(documents[0])))}, nil
	case len(documents) != 1:
		return []string{fmt.Sprintf("%s: got %d, want one", file, len(documents))}, nil
	}
	var all []string
	for _, d := range m.JSON(want, documents[0]) {
		all = append(all, file+d)
	}
	return all, nil
}

// tries looks for the runs in the log: their number, and the waits between them.
func (c *Case) tries(ctx context.Context, b *Box, function, id string) ([]string, error) {
	want, err := strconv.Atoi(c.With["tries"])
	if err != nil {
		return nil, fmt.Errorf("with.tries: %w", err)
	}
	query := fmt.Sprintf(`function:=%q request_id:=%q "START RequestId"`, function, id)
	var lines []stack.LogLine
	for {
		if lines, err = b.Query(ctx, query); err == nil && len(lines) >= want {
			break
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%d runs are logged, want %d", len(lines), want), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
	if len(lines) != want {
		return []string{fmt.Sprintf("ran %d times, want %d", len(lines), want)}, nil
	}
	pause, _ := strconv.Atoi(c.With["pause"])
	for i := 1; pause > 0 && i < len(lines); i++ {
		least := time.Duration(pause*i) * time.Second
		if gap := lines[i].Time.Sub(lines[i-1].Time); gap < least {
			return []string{fmt.Sprintf("try %d came after %v, want at least %v", i+1, gap, least)}, nil
		}
	}
	return nil, nil
}

// sign invokes a function through the Invoke API; header are names and values of further headers.
func (b *Box) sign(ctx context.Context, function, invocation, payload string, header ...string) (stack.Answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.HTTPURL+"/2015-03-31/functions/"+function+"/invocations", strings.NewReader(payload))
	if err != nil {
		return stack.Answer{}, err
	}
	r.Header.Set("X-Amz-Invocation-Type", invocation)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	sigv4.Sign(r, sigv4.Credentials{AccessKeyID: stack.AccessKey, SecretAccessKey: stack.SecretKey}, "us-east-1", "lambda",
		sigv4.HashPayload([]byte(payload)), time.Now())
	res, err := b.HTTP.Do(r)
	if err != nil {
		return stack.Answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return stack.Answer{Status: res.StatusCode, Header: res.Header, Body: body}, err
}

// occupy keeps the function's one worker busy for a while.
func (b *Box) occupy(ctx context.Context, function string) (release func(), err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = b.sign(ctx, function, "RequestResponse", `{"body":"{\"action\":\"sleep\",\"ms\":3000}"}`) // only its time matters
	}()
	release = func() { <-done }
	for {
		answer, err := b.Do(ctx, http.MethodGet, b.AdminURL+"/pools", "", nil)
		if err != nil {
			release()
			return nil, err
		}
		var all struct {
			Pools []struct {
				Function string `json:"function"`
				Busy     int    `json:"busy"`
			} `json:"pools"`
		}
		if err := json.Unmarshal(answer.Body, &all); err != nil {
			release()
			return nil, err
		}
		for _, p := range all.Pools {
			if p.Function == function && p.Busy > 0 {
				return release, nil
			}
		}
		select {
		case <-done:
			return nil, errors.New("the worker was never seen busy")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// settled waits until nothing is left of a function's events but dead letters.
func (b *Box) settled(ctx context.Context, function string) error {
	for {
		answer, err := b.Do(ctx, http.MethodGet, b.AdminURL+"/async", "", nil)
		if err != nil {
			return err
		}
		var all struct {
			Functions []struct {
				Function string `json:"function"`
				Backlog  int    `json:"backlog"`
				InFlight int    `json:"in_flight"`
				Outcomes int    `json:"outcomes"`
			} `json:"functions"`
		}
		if err := json.Unmarshal(answer.Body, &all); err != nil {
			return fmt.Errorf("%s: %w", answer.Body, err)
		}
		for _, s := range all.Functions {
			if s.Function == function && s.Backlog+s.InFlight+s.Outcomes == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the event does not end: %s", answer.Body)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// records are those of an event at its destination.
func (b *Box) records(ctx context.Context, function, id string) ([][]byte, error) {
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(b.S3URL), Region: "us-east-1", UsePathStyle: true,
		Credentials: awscredentials.NewStaticCredentialsProvider(stack.AccessKey, stack.SecretKey, ""),
	})
	prefix := function + "/aws/lambda/async/" + function + "/"
	list, err := client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String(recordsBucket), Prefix: aws.String(function + "/")})
	if err != nil {
		return nil, fmt.Errorf("list the records: %w", err)
	}
	var found [][]byte
	for _, o := range list.Contents {
		key := aws.ToString(o.Key)
		if rest, ok := strings.CutPrefix(key, prefix); !ok || !recordKey.MatchString(rest) {
			return nil, fmt.Errorf("the key of a record is %s, want %sYYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<uuid>", key, prefix)
		}
		object, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(recordsBucket), Key: o.Key})
		if err != nil {
			return nil, fmt.Errorf("get a record: %w", err)
		}
		data, err := io.ReadAll(object.Body)
		if err := errors.Join(err, object.Body.Close()); err != nil {
			return nil, err
		}
		if bytes.Contains(data, []byte(id)) {
			found = append(found, data)
		}
	}
	return found, nil
}

// letters are the dead letters of an event.
func (b *Box) letters(ctx context.Context, function, id string) ([][]byte, error) {
	answer, err := b.Do(ctx, http.MethodGet, b.AdminURL+"/async/"+function+"/dead-letters", "", nil)
	if err != nil {
		return nil, err
	}
	var all struct {
		Letters []json.RawMessage `json:"dead_letters"`
	}
	if err := json.Unmarshal(answer.Body, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", answer.Body, err)
	}
	var found [][]byte
	for _, l := range all.Letters {
		if bytes.Contains(l, []byte(id)) {
			found = append(found, l)
		}
	}
	return found, nil
}

// runRefused gives the box functions that it must not take.
func runRefused(ctx context.Context, b *Box, c *Case) (differences []string, err error) {
	addition, err := c.Read(Step{}, "refused.txt")
	if err != nil {
		return nil, err
	}
	want, err := c.Read(Step{}, fileResponse)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(b.Home, "config", "functions.yml")
	before, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, before, 0o644)) }()
	if err := os.WriteFile(path, append(bytes.Clone(before), addition...), 0o644); err != nil {
		return nil, err
	}
	answer, err := b.reload(ctx)
	if err != nil {
		return nil, err
	}
	return (&Matcher{Vars: b.Vars}).Response(want, answer), nil
}
