// Package lineage counts how often a chain of invocations has come back to a function, in the member Lineage of the trace
// header, which AWS's SDKs pass on from function to function (Lambda developer guide, Recursive loop detection).
//
// The member is <loop>:<hash>:<requests>, as Lambda's own: a function's hash, how often the chain has come to this function,
// from 1, and how many steps the chain has, from 0. It names one function, however long the chain is: it is another one at
// every power of two of steps, as long as the function has not been met again. So a circle is found wherever in the chain it
// begins (Brent's algorithm).
package lineage

import (
	"hash/fnv"
	"strconv"
	"strings"
)

const (
	// Most is how often a chain may come to one function; the next time is refused (AWS: about 16 times).
	Most = 16
	// maxRequests and maxLoops bound the counters (AWS's propagators for OpenTelemetry refuse larger ones).
	maxRequests, maxLoops = 255, 32767
	member                = "Lineage="
)

// Hop takes one step to a function: it returns the trace header that the function gets, and how often the chain has come to
// the function that its lineage names, this time included.
func Hop(trace, function string) (next string, loops int) {
	rest, old := split(trace)
	hash := hashOf(function)
	loop, anchor, requests, ok := parse(old)
	switch {
	case !ok:
		loop, anchor, requests = 1, hash, 0
	default:
		requests = min(requests+1, maxRequests)
		switch {
		case anchor == hash:
			loop = min(loop+1, maxLoops)
		case loop == 1 && requests&(requests-1) == 0:
			anchor = hash
		}
	}
	if rest != "" {
		rest += ";"
	}
	next = rest + member + strconv.Itoa(loop) + ":" + anchor + ":" + strconv.Itoa(requests)
	if anchor != hash {
		// The chain goes through here, but it is another function that is counted.
		return next, min(loop, Most)
	}
	return next, loop
}

// Cut returns a trace header without its lineage: a new chain begins with it.
func Cut(trace string) string {
	rest, _ := split(trace)
	return rest
}

// split takes the lineage out of a trace header.
func split(trace string) (rest, lineage string) {
	var kept []string
	for part := range strings.SplitSeq(trace, ";") {
		switch value, is := strings.CutPrefix(part, member); {
		case is:
			lineage = value
		case part != "":
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ";"), lineage
}

func parse(lineage string) (loop int, hash string, requests int, ok bool) {
	first, rest, _ := strings.Cut(lineage, ":")
	hash, last, _ := strings.Cut(rest, ":")
	loop, err := strconv.Atoi(first)
	requests, err2 := strconv.Atoi(last)
	ok = err == nil && err2 == nil && len(hash) == 8 && loop >= 1 && loop <= maxLoops && requests >= 0 && requests <= maxRequests
	return loop, hash, requests, ok
}

// hashOf is 8 hexadecimal digits.
func hashOf(function string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(function)) // it never fails (package hash)
	text := strconv.FormatUint(uint64(h.Sum32()), 16)
	return "00000000"[len(text):] + text
}
