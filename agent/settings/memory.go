package settings

import (
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/guard/setting"
)

// MemoryShare is a part of a machine's memory: so many percent, else so many bytes. The zero value is no bound.
type MemoryShare struct {
	Percent int
	Bytes   int64
}

// Of returns the bytes of s on a machine that has so many; 0 is no bound.
func (s MemoryShare) Of(machine int64) int64 {
	if s.Percent > 0 {
		return machine / 100 * int64(s.Percent)
	}
	return s.Bytes
}

func (r reader) memory(name string) MemoryShare {
	v := r.Text(name)
	if v == setting.Off {
		return MemoryShare{}
	}
	number, percent := strings.CutSuffix(v, "%")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 1 || percent && n > 100 || n > 1<<30:
		r.Fail(name, v, "must be a percentage such as 80%, a number of megabytes, or off")
	case percent:
		return MemoryShare{Percent: n}
	}
	return MemoryShare{Bytes: int64(n) << 20}
}
