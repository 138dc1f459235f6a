package lineage

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

const trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"

// steps goes along names, over and over, until a step is refused, and returns how many were not.
func steps(most int, before []string, circle []string) (n int, last string) {
	header := trace
	take := func(name string) bool {
		next, loops := Hop(header, name)
		header = next
		if loops > Most {
			return false
		}
		n++
		return true
	}
	for _, name := range before {
		if !take(name) {
			return n, header
		}
	}
	for n < most {
		if !take(circle[(n-len(before))%len(circle)]) {
			return n, header
		}
	}
	return n, header
}

// The recorded form is Lineage=1:24be3460:0 in the first invocation.
func TestHop_Form(t *testing.T) {
	form := regexp.MustCompile(`^` + regexp.QuoteMeta(trace) + `;Lineage=(\d+:[0-9a-f]{8}:\d+)$`)
	first, loops := Hop(trace, "f")
	assert.Regexp(t, form, first)
	assert.Equal(t, 1, loops)
	assert.Regexp(t, `;Lineage=1:[0-9a-f]{8}:0$`, first)
	second, loops := Hop(first, "f")
	assert.Regexp(t, form, second)
	assert.Equal(t, 2, loops)
	assert.Regexp(t, `;Lineage=2:[0-9a-f]{8}:1$`, second)
	alone, _ := Hop("", "f")
	assert.Regexp(t, `^Lineage=1:[0-9a-f]{8}:0$`, alone)
	self, _ := Hop("Root=1;Lineage=x;Self=2", "f")
	assert.Regexp(t, `^Root=1;Self=2;Lineage=1:[0-9a-f]{8}:0$`, self, "what is no lineage is replaced")
}

func TestHop_FunctionThatInvokesItself_EndsAfter16(t *testing.T) {
	n, _ := steps(1000, nil, []string{"f"})
	assert.Equal(t, Most, n)
}

func TestHop_Circles_EndWhereverTheyBegin(t *testing.T) {
	for _, size := range []int{2, 3, 5, 16, 40} {
		for _, before := range []int{0, 1, 7, 20} {
			var way, circle []string
			for i := range before {
				way = append(way, fmt.Sprint("way", i))
			}
			for i := range size {
				circle = append(circle, fmt.Sprint("circle", i))
			}
			n, _ := steps(10000, way, circle)
			assert.GreaterOrEqual(t, n, Most*size, "size %d after %d: not before 16 rounds", size, before)
			// Up to the next power of two to stand in the circle, and to its double to be as far apart as it is long.
			assert.LessOrEqual(t, n, before+size*(Most+1)+4*max(size, before), "size %d after %d", size, before)
		}
	}
}

func TestHop_LongWayWithoutCircle_IsNeverRefused(t *testing.T) {
	header := trace
	for i := range 1000 {
		next, loops := Hop(header, fmt.Sprint("f", i))
		assert.Equal(t, 1, loops)
		header = next
	}
	assert.Less(t, len(header), 120, "it does not grow")
	assert.Equal(t, 1, strings.Count(header, "Lineage="))
}

func BenchmarkHop(b *testing.B) {
	first, _ := Hop(trace, "f")
	b.ReportAllocs()
	for b.Loop() {
		Hop(first, "g")
	}
}
