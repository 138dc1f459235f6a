// Package measure keeps what was measured, and compares it with a baseline of the same run, round by round.
package measure

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Units of figures.
const (
	Milliseconds = "ms"
	Microseconds = "µs"
	Seconds      = "s"
	Megabytes    = "MB"
	PerSecond    = "/s"
	Pieces       = ""
)

// nanoseconds in one of a unit of time.
var nanoseconds = map[string]float64{Milliseconds: 1e6, Microseconds: 1e3, Seconds: 1e9}

// A histogram takes from one microsecond to ten minutes, with three digits.
const (
	shortest, longest = int64(time.Microsecond), int64(10 * time.Minute)
	digits            = 3
)

// Figure is one thing that was measured, in rounds that took turns with those of its baselines.
type Figure struct {
	Name, Unit string
	// Quantile of a round's samples is the round's value; the median when 0.
	Quantile float64
	// all and the rounds' own histograms have times; values are those of rounds without samples.
	all    *hdrhistogram.Histogram
	rounds []*hdrhistogram.Histogram
	values []float64
	failed map[string]int
	late   int
}

// Times is a Figure of samples in a unit of time.
func Times(name, unit string) *Figure {
	return &Figure{Name: name, Unit: unit, all: hdrhistogram.New(shortest, longest, digits)}
}

// Values is a Figure that has one value a round.
func Values(name, unit string) *Figure {
	return &Figure{Name: name, Unit: unit}
}

// Round begins the next round of samples.
func (f *Figure) Round() { f.rounds = append(f.rounds, hdrhistogram.New(shortest, longest, digits)) }

// Took adds a sample to the present round.
func (f *Figure) Took(d time.Duration) {
	n := min(max(d.Nanoseconds(), shortest), longest)
	_ = f.all.RecordValue(n) // it is in its bounds
	_ = f.rounds[len(f.rounds)-1].RecordValue(n)
}

// Is adds the value of a round.
func (f *Figure) Is(v float64) { f.values = append(f.values, v) }

// Fail counts a request that was not answered as it should: it is no sample.
func (f *Figure) Fail(cause string) {
	if f.failed == nil {
		f.failed = map[string]int{}
	}
	f.failed[cause]++
}

// Late counts a request that was sent late; its time counts from when it was due.
func (f *Figure) Late() { f.late++ }

// Failed counts those that were not answered as they should, by cause.
func (f *Figure) Failed() map[string]int { return maps.Clone(f.failed) }

// Rounds are the values of the rounds.
func (f *Figure) Rounds() []float64 {
	if f.all == nil {
		return slices.Clone(f.values)
	}
	q := f.Quantile
	if q == 0 {
		q = 0.5
	}
	values := make([]float64, 0, len(f.rounds))
	for _, r := range f.rounds {
		if r.TotalCount() > 0 {
			values = append(values, float64(r.ValueAtQuantile(100*q))/nanoseconds[f.Unit])
		}
	}
	return values
}

// Value is the median of the rounds' values; 0 without any.
func (f *Figure) Value() float64 { return median(f.Rounds()) }

// Summary is a Figure in numbers of its unit.
type Summary struct {
	Name string `json:"name"`
	Unit string `json:"unit,omitempty"`
	// N counts samples, or rounds where a round has one value.
	N      int     `json:"n"`
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	P90    float64 `json:"p90,omitempty"`
	P99    float64 `json:"p99,omitempty"`
	P999   float64 `json:"p999,omitempty"`
	Max    float64 `json:"max"`
	// Rounds are the values of the rounds.
	Rounds []float64 `json:"rounds"`
	// Failed are the requests that were not answered as they should, by cause; none of them is a sample. Late were sent late.
	Failed map[string]int `json:"failed,omitempty"`
	Late   int            `json:"late,omitempty"`
	// Histogram has all samples, in nanoseconds: HdrHistogram's V2 form, compressed, in base64.
	Histogram string `json:"histogram,omitempty"`
}

// Summary sums it up.
func (f *Figure) Summary() (Summary, error) {
	s := Summary{Name: f.Name, Unit: f.Unit, Rounds: f.Rounds(), Failed: f.failed, Late: f.late}
	if f.all == nil {
		if s.N = len(f.values); s.N > 0 {
			s.Min, s.Median, s.Max = slices.Min(f.values), median(f.values), slices.Max(f.values)
		}
		return s, nil
	}
	if s.N = int(f.all.TotalCount()); s.N == 0 {
		return s, nil
	}
	at := func(percent float64) float64 {
		return float64(f.all.ValueAtQuantile(percent)) / nanoseconds[f.Unit]
	}
	s.Min, s.Median, s.P90, s.P99, s.P999 = float64(f.all.Min())/nanoseconds[f.Unit], at(50), at(90), at(99), at(99.9)
	s.Max = float64(f.all.Max()) / nanoseconds[f.Unit]
	text, err := f.all.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return s, fmt.Errorf("write the histogram of %s: %w", f.Name, err)
	}
	s.Histogram = string(text)
	return s, nil
}

// Less is a Figure of what a has more than b, round by round.
func Less(name string, a, b *Figure) *Figure {
	f := Values(name, a.Unit)
	left, right := a.Rounds(), b.Rounds()
	for i := range min(len(left), len(right)) {
		f.Is(left[i] - right[i])
	}
	return f
}

// Ratio is a to b: the median of their rounds' ratios, and the least and the greatest. ok is false without a round of both.
func Ratio(a, b *Figure) (middle, least, greatest float64, ok bool) {
	var ratios []float64
	left, right := a.Rounds(), b.Rounds()
	for i := range min(len(left), len(right)) {
		if right[i] > 0 {
			ratios = append(ratios, left[i]/right[i])
		}
	}
	if len(ratios) == 0 {
		return 0, 0, 0, false
	}
	return median(ratios), slices.Min(ratios), slices.Max(ratios), true
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
