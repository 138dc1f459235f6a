// Package stores checks the contract between the box and its stores: what functions, the provisioner and the agent
// rely on of S3 and of the DynamoDB API, asked with the real AWS SDK. The checks are what both a production store
// (RustFS, ScyllaDB Alternator) and AWS promise; what Alternator does not have (transactions, PartiQL) is not in the
// contract.
//
// Which stores are checked is set by the environment:
//
//	S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY                      an S3, "http://host:port"
//	DYNAMODB_ENDPOINT, DYNAMODB_ACCESS_KEY, DYNAMODB_SECRET_KEY    a DynamoDB API
//	AWS_REGION                                                     default us-east-1
//	DYNAMODB_TTL_WAIT_SECONDS                                      how long an expired item may stay; default 120
//
// Keys default to the development ones. A store whose endpoint is not set is the native way's stand-in, which the
// tests start themselves. A stand-in's known gaps are listed in gaps_test.go; a store that is set has none.
package stores

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// check is one promise of a store.
type check[S any] struct {
	name string
	run  func(t testing.TB, store S)
}

// trial is the testing.TB of one check: it collects failures, so that a known gap can be told from a defect.
type trial struct {
	testing.TB
	failures []string
}

func (t *trial) Errorf(format string, args ...any) {
	t.failures = append(t.failures, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (t *trial) FailNow() { runtime.Goexit() }

// perform runs every check as a subtest. One that is a known gap is run all the same: while it fails it is reported
// as skipped with its reason, and once it passes it is a failure, so that the list stays true.
func perform[S any](t *testing.T, store S, gaps map[string]string, checks []check[S]) {
	t.Helper()
	require.GreaterOrEqual(t, len(checks), 30, "the contract must not shrink")
	names := make([]string, len(checks))
	for i, c := range checks {
		require.NotContains(t, names[:i], c.name, "every check needs a name of its own")
		names[i] = c.name
	}
	for name := range gaps {
		require.True(t, slices.Contains(names, name), "the known gap %q is no check", name)
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			failures := attempt(t, store, c)
			reason, known := gaps[c.name]
			switch {
			case known && len(failures) == 0:
				t.Errorf("works, but is listed as a known gap (%s): remove it from gaps_test.go", reason)
			case known:
				t.Skipf("known gap of the stand-in: %s\nobserved: %s", reason, strings.Join(failures, "\n"))
			default:
				for _, failure := range failures {
					t.Error(failure)
				}
			}
		})
	}
}

// attempt runs one check in a goroutine of its own, which a failed requirement ends.
func attempt[S any](t *testing.T, store S, c check[S]) []string {
	tried := &trial{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(tried, store)
	}()
	<-done
	return tried.failures
}

// requireCode requires an error of the store with one of the codes.
func requireCode(t testing.TB, err error, codes ...string) {
	t.Helper()
	require.Error(t, err)
	var api smithy.APIError
	require.ErrorAs(t, err, &api)
	assert.Contains(t, codes, api.ErrorCode(), "%v", err)
}

// setting is an environment variable or its default.
func setting(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}
