// Command lambda-stream is a sample function whose answer streams. The query of the request says what it writes:
//
//	chunks=n          n lines "chunk 1 of n" (default 3)
//	bytes=n           n bytes of 0123456789abcdef... in place of lines
//	pause_ms=n        between two lines
//	wait=bucket/key   before each line but the first, until the object key-1, key-2, ... is in the bucket
//	fail=error|exit|panic|hang   after the last line, in place of a clean end
//	prelude=no        only the bytes: no status, no headers
//
// A bad query is answered 400 {"message": <why>}.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	maxChunks = 1000
	// maxBytes bounds one answer: enough to pass every limit of the box.
	maxBytes = 4 << 30
	maxPause = time.Minute
	// poll is how often an object that is waited for is looked for.
	poll = 20 * time.Millisecond
)

// order is what a query asks for.
type order struct {
	chunks      int
	bytes       int64
	pause       time.Duration
	bucket, key string
	fail        string
	bare        bool
}

// objects finds objects; *s3.Client is the one of the box.
type objects interface {
	HeadObject(ctx context.Context, in *s3.HeadObjectInput, o ...func(*s3.Options)) (*s3.HeadObjectOutput, error)
}

type function struct {
	// objects is called when an order waits for one: no other pays for it.
	objects func() (objects, error)
	exit    func(code int)
}

func main() {
	f := &function{objects: sync.OnceValues(store), exit: os.Exit}
	lambda.Start(f.handle)
}

func store() (objects, error) {
	settings, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		return nil, fmt.Errorf("read the SDK's settings: %w", err)
	}
	return s3.NewFromConfig(settings), nil
}

// bare is a stream without a prelude: the bytes alone, as text.
type bare struct{ io.ReadCloser }

// ContentType is asked for by aws-lambda-go.
func (bare) ContentType() string { return "text/plain; charset=utf-8" }

// MarshalJSON refuses: aws-lambda-go streams a reader only when it is no JSON.
func (bare) MarshalJSON() ([]byte, error) { return nil, errors.New("a stream is no JSON") }

func (f *function) handle(ctx context.Context, request events.APIGatewayProxyRequest) (io.Reader, error) {
	o, err := parse(request.QueryStringParameters)
	if err != nil {
		body, merr := json.Marshal(map[string]string{"message": err.Error()})
		return &events.LambdaFunctionURLStreamingResponse{
			StatusCode: http.StatusBadRequest,
			Headers:    map[string]string{"Content-Type": "application/json"},
			Body:       strings.NewReader(string(body)),
		}, merr
	}
	r, w := io.Pipe()
	go func() {
		// The runtime puts the error in the trailers of the stream; nil is a clean end.
		_ = w.CloseWithError(f.write(ctx, w, o))
	}()
	if o.bare {
		return bare{r}, nil
	}
	return &events.LambdaFunctionURLStreamingResponse{
		StatusCode: http.StatusOK,
		Headers:    map[string]string{"Content-Type": "text/plain; charset=utf-8", "X-Stream": "yes"},
		Cookies:    []string{"stream=1"},
		Body:       r,
	}, nil
}

func parse(query map[string]string) (o order, err error) {
	o = order{chunks: 3}
	var errs []error
	number := func(name, text string, most int64) int64 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n > most {
			errs = append(errs, fmt.Errorf("%s: must be 0 to %d, got %q", name, most, text))
		}
		return n
	}
	for name, text := range query {
		switch name {
		case "chunks":
			o.chunks = int(number(name, text, maxChunks))
		case "bytes":
			o.bytes, o.chunks = number(name, text, maxBytes), 0
		case "pause_ms":
			o.pause = time.Duration(number(name, text, maxPause.Milliseconds())) * time.Millisecond
		case "wait":
			var ok bool
			if o.bucket, o.key, ok = strings.Cut(text, "/"); !ok || o.bucket == "" || o.key == "" {
				errs = append(errs, fmt.Errorf("wait: must be bucket/key, got %q", text))
			}
		case "fail":
			switch text {
			case "error", "exit", "panic", "hang":
			default:
				errs = append(errs, fmt.Errorf("fail: must be error, exit, panic or hang, got %q", text))
			}
			o.fail = text
		case "prelude":
			if text != "no" && text != "yes" {
				errs = append(errs, fmt.Errorf("prelude: must be yes or no, got %q", text))
			}
			o.bare = text == "no"
		default:
			errs = append(errs, fmt.Errorf("%s: there is no such parameter: chunks, bytes, pause_ms, wait, fail, prelude", name))
		}
	}
	return o, errors.Join(errs...)
}

// write writes the body of an answer. It ends early when w takes no more.
func (f *function) write(ctx context.Context, w io.Writer, o order) error {
	for i := range o.chunks {
		if i > 0 {
			if err := f.wait(ctx, o, i); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "chunk %d of %d\n", i+1, o.chunks); err != nil {
			return err
		}
	}
	if err := writeBytes(w, o.bytes); err != nil {
		return err
	}
	switch o.fail {
	case "error":
		return errors.New("the stream fails as it was told to")
	case "exit":
		f.exit(3)
	case "panic":
		panic("the stream panics as it was told to")
	case "hang":
		<-ctx.Done() // the function's deadline; lambda-init does not wait for what comes then
		select {}
	}
	return nil
}

// writeBytes writes n bytes of a repeated pattern.
func writeBytes(w io.Writer, n int64) error {
	piece := []byte(strings.Repeat("0123456789abcdef", 4096))
	for n > 0 {
		size := min(n, int64(len(piece)))
		if _, err := w.Write(piece[:size]); err != nil {
			return err
		}
		n -= size
	}
	return nil
}

// wait waits before the line that follows the i-th.
func (f *function) wait(ctx context.Context, o order, i int) error {
	if o.pause > 0 {
		select {
		case <-time.After(o.pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if o.bucket == "" {
		return nil
	}
	client, err := f.objects()
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%s-%d", o.key, i)
	for {
		_, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(o.bucket), Key: aws.String(key)})
		var missing *types.NotFound
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &missing):
			return fmt.Errorf("look for %s in %s: %w", key, o.bucket, err)
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
