package turns_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/guard/turns"
)

func granted(t *turns.Turn) bool {
	select {
	case <-t.Granted():
		return true
	default:
		return false
	}
}

func TestTurns_OneKey_NeverHasAll(t *testing.T) {
	all := turns.New(4, 0)
	var greedy []*turns.Turn
	for range 10 {
		greedy = append(greedy, all.Join("greedy", false))
	}
	assert.True(t, granted(greedy[2]))
	assert.False(t, granted(greedy[3]), "one place is for the next one")
	other := all.Join("other", false)
	assert.True(t, granted(other))
	other.Done()
	other.Done()
	assert.False(t, granted(greedy[3]))
	greedy[0].Done()
	assert.True(t, granted(greedy[3]), "in order")
	assert.False(t, granted(greedy[4]))
}

func TestTurns_One_IsEnoughForAll(t *testing.T) {
	one := turns.New(1, 0)
	a, b := one.Join("a", false), one.Join("a", false)
	assert.True(t, granted(a))
	assert.False(t, granted(b))
	a.Done()
	assert.True(t, granted(b))
}

func TestTurns_Waiting(t *testing.T) {
	one := turns.New(1, 0)
	assert.False(t, one.Waiting())
	a := one.Join("a", false)
	assert.False(t, one.Waiting(), "it has its place")
	b := one.Join("b", false)
	assert.True(t, one.Waiting())
	b.Done()
	assert.False(t, one.Waiting())
	a.Done()
}

func TestTurns_WhoHasFewest_IsNext(t *testing.T) {
	all := turns.New(3, 0)
	a := []*turns.Turn{all.Join("a", false), all.Join("a", false), all.Join("a", false), all.Join("a", false)}
	b := []*turns.Turn{all.Join("b", false), all.Join("b", false), all.Join("b", false)}
	a[0].Done()
	assert.True(t, granted(a[2]) != granted(b[1]), "one of both, who have one each")
	c := all.Join("c", false)
	a[1].Done()
	assert.True(t, granted(c), "who has none goes before those who came first")
	_ = b
}

func TestTurns_Urgent_GoBeforeOthers(t *testing.T) {
	all := turns.New(2, 0)
	first, second := all.Join("a", false), all.Join("b", false)
	slow := []*turns.Turn{all.Join("a", false), all.Join("b", false), all.Join("c", false)}
	urgent := all.Join("a", true)
	first.Done()
	assert.True(t, granted(urgent))
	all.Hurry("c")
	all.Hurry("nobody")
	urgent.Done()
	assert.True(t, granted(slow[2]))
	assert.False(t, granted(slow[0]))
	slow[0].Done() // it leaves without having had its turn
	second.Done()
	assert.True(t, granted(slow[1]))
}

func TestTurns_WhoTakesLonger_KeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := turns.New(2, time.Second)
		stuck := []*turns.Turn{all.Join("a", false), all.Join("b", false)}
		next := all.Join("c", false)
		time.Sleep(time.Second - time.Nanosecond)
		assert.False(t, granted(next))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		assert.True(t, granted(next))
		fresh := all.Join("d", false)
		assert.True(t, granted(fresh), "the other place is free too")
		for _, s := range stuck {
			s.Done()
		}
		assert.False(t, granted(all.Join("e", false)), "what was lost is not given back twice")
		next.Done()
		fresh.Done()
	})
}

func TestTurns_ManyAtOnce_NeverMoreThanPlaces(t *testing.T) {
	all := turns.New(3, 0)
	var mu sync.Mutex
	now, most := 0, 0
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				turn := all.Join(fmt.Sprint("key", i), n%3 == 0)
				if n%7 != 0 {
					<-turn.Granted()
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					mu.Lock()
					now--
					mu.Unlock()
				}
				turn.Done()
			}
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, most, 3)
	for i := range 3 {
		assert.True(t, granted(all.Join(fmt.Sprint("after", i), false)), "every place has come back")
	}
}
