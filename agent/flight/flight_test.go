package flight_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent/flight"
)

func TestDo_CallersOfOneKey_ShareTheWork_WhichOutlivesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running sync.WaitGroup
		g := flight.New[string](t.Context(), time.Hour, &running)
		var times atomic.Int32
		work := func(ctx context.Context) (string, error) {
			times.Add(1)
			time.Sleep(time.Minute)
			return "made", ctx.Err()
		}
		leaves, leave := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		callers.Go(func() {
			_, err := g.Do(leaves, "k", work)
			assert.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		callers.Go(func() {
			got, err := g.Do(t.Context(), "k", work)
			assert.NoError(t, err)
			assert.Equal(t, "made", got)
		})
		synctest.Wait()
		leave()
		callers.Wait()
		running.Wait()
		assert.EqualValues(t, 1, times.Load())
	})
}

func TestDo_Ends_ByItsLimitAndItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running sync.WaitGroup
		life, end := context.WithCancel(t.Context())
		g := flight.New[int](life, time.Minute, &running)
		began := time.Now()
		_, err := g.Do(t.Context(), "k", func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(began))
		broken := errors.New("broken")
		_, err = g.Do(t.Context(), "k", func(context.Context) (int, error) { return 1, broken })
		require.ErrorIs(t, err, broken)
		end()
		_, err = g.Do(t.Context(), "k", func(context.Context) (int, error) { return 1, nil })
		assert.ErrorIs(t, err, flight.ErrStopping)
		running.Wait()
	})
}
