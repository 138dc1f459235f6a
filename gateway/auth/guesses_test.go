package auth_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/auth"
)

var (
	right = auth.Credentials{User: "user", Password: "pass"}
	wrong = auth.Credentials{User: "user", Password: "guess"}
)

// guess is wrong until the address is told to wait, and returns how long.
func guess(t *testing.T, a *auth.Authenticator, from string) time.Duration {
	t.Helper()
	for range 1000 {
		_, _, err := a.Login(from, "key", wrong)
		var e *gateway.Error
		require.True(t, errors.As(err, &e))
		if e.Code == gateway.CodeRouteThrottled {
			require.Equal(t, gateway.CodeRouteThrottled, gateway.ErrorCode(a.MayLogIn(from)))
			return e.RetryAfter
		}
	}
	t.Fatal("never told to wait")
	return 0
}

func TestLogin_WrongTooOften_WaitsLongerEachTime(t *testing.T) {
	a, c := mustNew(t)
	waits := []time.Duration{}
	for range 8 {
		wait := guess(t, a, "192.0.2.1")
		waits = append(waits, wait)
		// Also what is right is not looked at, and nothing is told of the key.
		_, keyRight, err := a.Login("192.0.2.1", "key", right)
		assert.Equal(t, gateway.CodeRouteThrottled, gateway.ErrorCode(err))
		assert.False(t, keyRight)
		c.now = c.now.Add(wait)
	}
	assert.Equal(t, []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}, func() []time.Duration {
		seconds := make([]time.Duration, len(waits))
		for i, w := range waits {
			seconds[i] = w / time.Second
		}
		return seconds
	}())
	// Another address is not held back, and this one logs in once it has waited.
	_, _, err := a.Login("192.0.2.2", "key", right)
	require.NoError(t, err)
	_, _, err = a.Login("192.0.2.1", "key", right)
	require.NoError(t, err)
}

func TestLogin_WrongKey_CountsToo(t *testing.T) {
	a, _ := mustNew(t)
	for range 10 {
		_, keyRight, err := a.Login("192.0.2.1", "guess", right)
		assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err))
		assert.False(t, keyRight)
	}
	assert.Equal(t, gateway.CodeRouteThrottled, gateway.ErrorCode(a.MayLogIn("192.0.2.1")))
}

func TestLogin_RightOnes_AreNeverHeldBack(t *testing.T) {
	a, _ := mustNew(t)
	for i := range 500 {
		_, _, err := a.Login("192.0.2.1", "key", right)
		require.NoError(t, err)
		if i%5 == 0 {
			_, _, err = a.Login("192.0.2.1", "key", wrong)
			require.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err))
		}
		if i == 400 {
			break // the failures of all addresses have a bound of their own
		}
	}
}

func TestLogin_GuessesFromManyAddresses_LeaveKnownOnesIn(t *testing.T) {
	a, c := mustNew(t)
	_, _, err := a.Login("192.0.2.1", "key", right)
	require.NoError(t, err)
	failed := 0
	for i := range 1000 {
		if _, _, err := a.Login(fmt.Sprint("198.51.100.", i), "key", wrong); gateway.ErrorCode(err) == gateway.CodeUnauthorized {
			failed++
		}
	}
	assert.Equal(t, 100, failed)
	_, _, err = a.Login("192.0.2.1", "key", right)
	require.NoError(t, err, "somebody has logged in from there before")
	_, _, err = a.Login("192.0.2.9", "key", right)
	assert.Equal(t, gateway.CodeRouteThrottled, gateway.ErrorCode(err))
	c.now = c.now.Add(3 * time.Second)
	_, _, err = a.Login("192.0.2.9", "key", right)
	require.NoError(t, err)
}

func TestLogin_GuessesSideBySide_CountAsThoseInTurn(t *testing.T) {
	a, _ := mustNew(t)
	var looked atomic.Int32
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() {
			if _, _, err := a.Login("192.0.2.1", "key", wrong); gateway.ErrorCode(err) == gateway.CodeUnauthorized {
				looked.Add(1)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, int32(10), looked.Load())
}
