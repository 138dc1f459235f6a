package sweep_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/stores/sweep"
)

func TestLoop_SweepsAtOnceAndAgainAlsoAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		l := sweep.Start(func(context.Context) (int, error) {
			runs.Add(1)
			return 0, errors.New("the store is away")
		}, "items", time.Hour, slog.New(slog.DiscardHandler))
		synctest.Wait()
		assert.EqualValues(t, 1, runs.Load())
		time.Sleep(2*time.Hour + time.Minute)
		synctest.Wait()
		assert.EqualValues(t, 3, runs.Load())
		require.NoError(t, l.Close())
		time.Sleep(2 * time.Hour)
		assert.EqualValues(t, 3, runs.Load())
	})
}

func TestLoop_Close_EndsASweepThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := sweep.Start(func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}, "items", time.Hour, slog.New(slog.DiscardHandler))
		synctest.Wait()
		require.NoError(t, l.Close())
	})
}
