package measure

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// times is a figure with these milliseconds in each round.
func times(name string, rounds ...[]int) *Figure {
	f := Times(name, Milliseconds)
	for _, samples := range rounds {
		f.Round()
		for _, ms := range samples {
			f.Took(time.Duration(ms) * time.Millisecond)
		}
	}
	return f
}

func values(name string, v ...float64) *Figure {
	f := Values(name, PerSecond)
	for _, x := range v {
		f.Is(x)
	}
	return f
}

func TestFigure_Summary(t *testing.T) {
	f := times("cold", []int{10, 20, 30}, []int{40, 50, 60})
	f.Fail("503")
	f.Late()
	s, err := f.Summary()
	require.NoError(t, err)
	assert.Equal(t, 6, s.N)
	assert.InEpsilon(t, 10, s.Min, 0.01)
	assert.InEpsilon(t, 30, s.Median, 0.01)
	assert.InEpsilon(t, 60, s.P99, 0.01)
	assert.InEpsilon(t, 60, s.Max, 0.01)
	assert.InEpsilonSlice(t, []float64{20, 50}, s.Rounds, 0.01)
	assert.Equal(t, map[string]int{"503": 1}, s.Failed, "what failed is no sample")
	assert.Equal(t, 1, s.Late)
	kept, err := hdrhistogram.Decode([]byte(s.Histogram))
	require.NoError(t, err)
	assert.Equal(t, int64(6), kept.TotalCount())

	f.Quantile = 0.99
	assert.InEpsilonSlice(t, []float64{30, 60}, f.Rounds(), 0.01)
	s, err = values("starts", 3, 1, 2).Summary()
	require.NoError(t, err)
	assert.Equal(t, Summary{Name: "starts", Unit: PerSecond, N: 3, Min: 1, Median: 2, Max: 3, Rounds: []float64{3, 1, 2}}, s)
}

func TestRatio_ByRounds(t *testing.T) {
	// The second round met a noisy machine: both are slow, and their ratio is what it is.
	middle, least, greatest, ok := Ratio(values("a", 2, 20, 3), values("b", 1, 10, 2))
	assert.True(t, ok)
	assert.Equal(t, []float64{2, 1.5, 2}, []float64{middle, least, greatest})
	_, _, _, ok = Ratio(values("a", 1), values("b"))
	assert.False(t, ok)
	assert.Equal(t, []float64{1, 10, 1}, Less("more", values("a", 2, 20, 3), values("b", 1, 10, 2)).Rounds())
}

func TestReport_Targets(t *testing.T) {
	r := &Report{Rounds: 1}
	require.NoError(t, r.Add(Row{What: "most", Target: &Target{Limit: 2}}, values("a", 2), values("b", 1)))
	require.NoError(t, r.Add(Row{What: "least", Target: &Target{Limit: 2.5, AtLeast: true}}, values("a", 2), values("b", 1)))
	require.NoError(t, r.Add(Row{What: "alone", Target: &Target{Limit: 2}, Noisy: "only 3 % idle"}, values("a", 3), nil))
	require.NoError(t, r.Add(Row{What: "none", Target: &Target{Limit: 2}}, values("a"), values("b", 1)))
	require.NoError(t, r.Add(Row{What: "beside"}, values("a", 1), nil))
	assert.True(t, *r.Rows[0].Reached)
	assert.False(t, *r.Rows[1].Reached)
	assert.False(t, *r.Rows[2].Reached)
	assert.Nil(t, r.Rows[3].Reached)
	assert.NotEmpty(t, r.Rows[3].Missing)

	var text strings.Builder
	require.NoError(t, r.Text(&text))
	assert.Contains(t, text.String(), "only 3 % idle")
	assert.Contains(t, text.String(), "beside")
	assert.NotContains(t, r.Markdown(), "beside", "it has no target")
	assert.Contains(t, r.Markdown(), "| most | 2 | 2 /s |  | b | 1 /s | 2 (2–2) | ≤ 2 | yes |")
	assert.Empty(t, r.Failures())
	failed := times("a", []int{1})
	failed.Fail("502")
	require.NoError(t, r.Add(Row{What: "warm"}, failed, nil))
	assert.Equal(t, []string{"warm, a: map[502:1]"}, r.Failures())
}

func TestReport_Files(t *testing.T) {
	dir := t.TempDir()
	r := &Report{Rounds: 3, Quick: true}
	require.NoError(t, r.Add(Row{What: "cold", Target: &Target{Limit: 2}}, times("a", []int{1}), times("b", []int{2})))
	file := filepath.Join(dir, "new", "bench.json")
	require.NoError(t, r.Write(file))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var back Report
	require.NoError(t, json.Unmarshal(text, &back))
	assert.Equal(t, r.Rows, back.Rows)

	readme := filepath.Join(dir, "README.md")
	require.NoError(t, os.WriteFile(readme, []byte("# one\n\n"+begin+"\nold\n"+end+"\n\n## two\n"), 0o644))
	for range 2 {
		require.NoError(t, r.Put(readme))
		text, err = os.ReadFile(readme)
		require.NoError(t, err)
		assert.Equal(t, "# one\n\n"+begin+"\n\n"+r.Markdown()+"\n"+end+"\n\n## two\n", string(text))
	}
	require.NoError(t, os.WriteFile(readme, []byte("# one\n"), 0o644))
	assert.ErrorContains(t, r.Put(readme), "README.md")
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.204: "0.2", 1: "1", 1.256: "1.26", 10: "10.0", 99.97: "100", 1234.5: "1234", -1.5: "-1.5"} {
		assert.Equal(t, want, number(v))
	}
}
