package budget

import (
	"context"
	"errors"
	"io"
	"time"
)

// Steps in which a buffer grows to what a sender announces: the announcement alone takes the first step, and what has
// arrived the next, so that a sender who stops holds little more than what it has sent.
const (
	firstStep  = 64 << 10
	secondStep = 1 << 20
	unknown    = 4 << 10
)

// patience is how long a body waits for others to end before it is refused.
const patience = time.Second

// ErrTooLong says that there is more to read than was wanted.
var ErrTooLong = errors.New("longer than allowed")

// ReadAll reads r to its end into buf[:0] and returns it, grown where it must. announced is how long r says that it is,
// -1 when it does not; most is how long it may be: ErrTooLong ends the reading of a longer one. claim takes the bytes of
// what is allocated, buf's own included, and waits a second for them where there are none. After an error the bytes read so far come back with it.
func ReadAll(r io.Reader, buf []byte, announced, most int64, claim *Claim) ([]byte, error) {
	buf = buf[:0]
	if announced > most {
		return buf, ErrTooLong
	}
	if err := claim.growSoon(int64(cap(buf))); err != nil {
		return buf, err
	}
	for {
		if len(buf) == cap(buf) {
			next := step(int64(len(buf)), announced, most)
			if err := claim.growSoon(next); err != nil {
				return buf, err
			}
			grown := make([]byte, len(buf), next)
			copy(grown, buf)
			claim.Shrink(int64(cap(buf)))
			buf = grown
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > most {
			return buf, ErrTooLong
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// step is the capacity that comes after have, which is used up. It is one more than what may come at most, so that the
// end, or a byte too many, can be read into it.
func step(have, announced, most int64) int64 {
	if announced >= 0 {
		switch {
		case have < firstStep && announced > firstStep:
			return firstStep
		case have < secondStep && announced > secondStep:
			return secondStep
		case have <= announced:
			return announced + 1
		}
	}
	if have == 0 {
		return unknown
	}
	return min(2*have, max(most, have)+1)
}

// growSoon is Grow with patience.
func (c *Claim) growSoon(n int64) error {
	if c == nil || c.budget == nil || n <= 0 || c.try(n) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.GrowWait(ctx, n)
}
