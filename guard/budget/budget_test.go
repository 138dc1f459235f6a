package budget_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/budget"
)

func TestBudget_OneCaller_GetsHalf(t *testing.T) {
	b := budget.New(1000)
	c := b.Claim("a")
	require.NoError(t, c.Grow(500))
	require.ErrorIs(t, c.Grow(1), budget.ErrUsedUp)
	assert.Equal(t, uint64(1), b.Refused())
	assert.Equal(t, int64(500), b.Used(), "what is refused takes nothing")
	c.Release()
	c.Release()
	assert.Zero(t, b.Used())
}

func TestBudget_ManyGreedyCallers_LeaveAPlaceForTheNext(t *testing.T) {
	b := budget.New(1 << 20)
	var claims []budget.Claim
	for i := range 10 {
		// Each takes what it gets, by many claims.
		for {
			c := b.Claim(fmt.Sprint("greedy", i))
			if c.Grow(1<<10) != nil {
				break
			}
			claims = append(claims, c)
		}
	}
	honest := b.Claim("honest")
	require.NoError(t, honest.Grow(256))
	for i := range claims {
		claims[i].Release()
	}
	honest.Release()
	assert.Zero(t, b.Used())
}

func TestClaim_Shrink_GivesBackAtMostWhatIsHeld(t *testing.T) {
	b := budget.New(1000)
	c := b.Claim("a")
	require.NoError(t, c.Grow(100))
	c.Shrink(40)
	assert.Equal(t, int64(60), b.Used())
	c.Shrink(1000)
	assert.Zero(t, b.Used())
	assert.Zero(t, c.Held())
}

func TestClaim_WithoutABudget_IsNeverRefused(t *testing.T) {
	var none *budget.Budget
	c := none.Claim("a")
	require.NoError(t, c.Grow(1<<40))
	require.NoError(t, c.GrowWait(t.Context(), 1<<40))
	c.Release()
}

func TestClaim_GrowWait_GetsWhatComesBack(t *testing.T) {
	b := budget.New(1000)
	first := b.Claim("a")
	require.NoError(t, first.Grow(500))
	got := make(chan error, 1)
	go func() {
		c := b.Claim("a")
		defer c.Release()
		got <- c.GrowWait(t.Context(), 400)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	second := b.Claim("a")
	require.ErrorIs(t, second.GrowWait(ctx, 400), budget.ErrUsedUp)
	first.Release()
	require.NoError(t, <-got)
}

func TestBudget_ManyAtOnce_CountsExactly(t *testing.T) {
	b := budget.New(1 << 20)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 500 {
				c := b.Claim(fmt.Sprint(i % 3))
				for range 4 {
					_ = c.Grow(50 << 10)
				}
				c.Shrink(1 << 10)
				c.Release()
			}
		})
	}
	wg.Wait()
	assert.Zero(t, b.Used())
}

func TestReadAll_ReadsWhatIsThere(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 64 << 10, 64<<10 + 1, 1 << 20, 3 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		for name, announced := range map[string]int64{"announced": int64(size), "not announced": -1} {
			t.Run(fmt.Sprint(size, " ", name), func(t *testing.T) {
				b := budget.New(64 << 20)
				c := b.Claim("a")
				got, err := budget.ReadAll(bytes.NewReader(body), nil, announced, 6<<20, &c)
				require.NoError(t, err)
				assert.True(t, bytes.Equal(body, got))
				assert.Equal(t, int64(cap(got)), c.Held(), "what is allocated is claimed")
				if announced >= 0 {
					assert.LessOrEqual(t, c.Held(), announced+1)
				}
			})
		}
	}
}

func TestReadAll_Refuses(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		r         io.Reader
		announced int64
		most      int64
		budget    int64
		want      error
	}{
		"announced too long": {strings.NewReader("x"), 11, 10, 1 << 20, budget.ErrTooLong},
		"too long":           {strings.NewReader(long), -1, 10, 1 << 20, budget.ErrTooLong},
		"used up":            {strings.NewReader(long), -1, 1 << 20, 64 << 10, budget.ErrUsedUp},
		"broken":             {iotest.ErrReader(broken), 100, 1 << 20, 1 << 20, broken},
	} {
		t.Run(name, func(t *testing.T) {
			b := budget.New(c.budget)
			claim := b.Claim("a")
			_, err := budget.ReadAll(c.r, nil, c.announced, c.most, &claim)
			require.ErrorIs(t, err, c.want)
			claim.Release()
			assert.Zero(t, b.Used())
		})
	}
}

func TestReadAll_SenderStops_HoldsLittleMoreThanItSent(t *testing.T) {
	b := budget.New(64 << 20)
	for sent, most := range map[int]int64{0: 64 << 10, 64<<10 + 1: 1 << 20, 1<<20 + 1: 6<<20 + 1} {
		c := b.Claim("a")
		r := io.MultiReader(strings.NewReader(strings.Repeat("x", sent)), iotest.ErrReader(io.ErrUnexpectedEOF))
		_, err := budget.ReadAll(r, nil, 6<<20, 6<<20, &c)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.LessOrEqual(t, c.Held(), most, "%d bytes sent", sent)
		c.Release()
	}
}

func BenchmarkClaim(b *testing.B) {
	budgets := budget.New(1 << 30)
	b.ReportAllocs()
	for b.Loop() {
		c := budgets.Claim("192.0.2.1")
		_ = c.Grow(1 << 10)
		c.Release()
	}
}
