package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Limits and defaults of asynchronous invocation (AWS: Lambda developer guide, Configuring error handling settings for
// asynchronous invocations; API reference, FunctionEventInvokeConfig).
const (
	// MaxAsyncRetries is the most, and the default, of Async.Retries.
	MaxAsyncRetries = 2
	// MinAsyncAge and MaxAsyncAge bound Async.MaxAge; the longest is the default.
	MinAsyncAge = time.Minute
	MaxAsyncAge = 6 * time.Hour
)

// Async says how the asynchronous invocations of a function are tried and where their outcome goes.
type Async struct {
	// Retries is how often an event is tried again after the function failed (AWS: MaximumRetryAttempts, 0 to 2).
	Retries int
	// MaxAge is how old an event may become before it is given up (AWS: MaximumEventAgeInSeconds, 60 to 21600).
	MaxAge time.Duration
	// Concurrency is how many events run at the same time, from 1 to max_capacity; 0 leaves one worker of several to
	// synchronous callers.
	Concurrency int
	// OnSuccess and OnFailure take a record of each outcome; nil for none.
	OnSuccess, OnFailure *Destination
	// DeadLetter keeps a failed event in the box's dead-letter queue. False only with OnFailure: the queue then takes what
	// could not be delivered there.
	DeadLetter bool
}

// Destination is where the record of an asynchronous invocation goes: one of Function, Bucket and URL.
type Destination struct {
	// Function is the name of another function, which is invoked asynchronously.
	Function string
	// Bucket is an S3 bucket of the box's store, in which the object's key begins with Prefix: empty, or with a slash at
	// its end.
	Bucket, Prefix string
	// URL is http or https and gets a POST.
	URL string
}

var (
	destinationFunction = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	destinationBucket   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	destinationPrefix   = regexp.MustCompile(`^[A-Za-z0-9!_.*'()/-]{1,512}$`)
)

// ParseDestination reads a destination as functions.yml has it: a function's name, "s3://bucket/prefix", or a URL. Its
// error completes a sentence that begins with the key.
func ParseDestination(text string) (Destination, error) {
	scheme, rest, found := strings.Cut(text, "://")
	switch {
	case !found && destinationFunction.MatchString(text):
		return Destination{Function: text}, nil
	case scheme == "s3":
		bucket, prefix, _ := strings.Cut(rest, "/")
		if !destinationBucket.MatchString(bucket) {
			return Destination{}, fmt.Errorf("must name a bucket of 3 to 63 lower-case letters, digits, dots and dashes after s3://, got %q", bucket)
		}
		if prefix != "" && !destinationPrefix.MatchString(prefix) {
			return Destination{}, fmt.Errorf("has a prefix with a character that object keys should not have: %q", prefix)
		}
		if prefix != "" && !strings.HasSuffix(prefix, "/") {
			prefix += "/"
		}
		return Destination{Bucket: bucket, Prefix: prefix}, nil
	case scheme == "http" || scheme == "https":
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" {
			return Destination{}, errors.New("is not a URL with a host")
		}
		if u.User != nil || u.Fragment != "" {
			return Destination{}, errors.New("must be a URL without user, password and fragment")
		}
		return Destination{URL: text}, nil
	}
	return Destination{}, fmt.Errorf("must be the name of a function, s3://bucket/prefix, or an http or https URL, got %q", text)
}

// String is what ParseDestination reads.
func (d Destination) String() string {
	switch {
	case d.Function != "":
		return d.Function
	case d.Bucket != "":
		return "s3://" + d.Bucket + "/" + d.Prefix
	}
	return d.URL
}
