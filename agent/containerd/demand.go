package containerd

import "time"

const (
	// demandSpan is what counts as at once: a few containers can be made in it. demandSpans of them are remembered.
	demandSpan  = 2 * time.Second
	demandSpans = 150
)

// demand is how many containers were wanted in each of the last spans of time.
type demand struct {
	counts [demandSpans]int
	// last is the number of the span that was counted last.
	last int64
}

// add counts one.
func (d *demand) add(now time.Time) { *d.at(now)++ }

// most is how many were wanted in the span in which most were.
func (d *demand) most(now time.Time) (n int) {
	d.at(now)
	for _, c := range d.counts {
		n = max(n, c)
	}
	return n
}

// at returns the count of the span of a time, and forgets those that are too long ago. A clock that was set back counts on where it was.
func (d *demand) at(now time.Time) *int {
	span := max(now.UnixNano()/int64(demandSpan), d.last)
	for i := max(d.last+1, span-demandSpans+1); i <= span; i++ {
		d.counts[i%demandSpans] = 0
	}
	d.last = span
	return &d.counts[span%demandSpans]
}
