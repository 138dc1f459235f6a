// Package settingnames finds environment variables that were meant as settings of the box and are none: misspelt ones, and
// those that other ways of running functions have. A setting that nobody reads has no effect and no error, so that its
// author would look for the fault elsewhere.
package settingnames

import (
	"fmt"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/guard/editdistance"
	"github.com/edge-serverless-box/esb/guard/setting"
)

// nothing returns variables that mean nothing here, though documents about boxes like this one name them, and what does.
func nothing() map[string]string {
	return map[string]string{
		"DOCKER_NETWORK": "functions are on a bridge of the box's own: ESB_BRIDGE and ESB_SUBNET say which",
	}
}

const (
	// shortest is the shortest name that another one can be taken for.
	shortest = 8
	// farthest is by how many letters a misspelt name may differ.
	farthest = 2
)

// Strange returns a sentence for each variable of environ ("NAME=value") that has a value and is no setting, though it looks
// as if it were meant to be one.
func Strange(environ []string) []string {
	known := setting.Names()
	var found []string
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		if value == "" || slices.Contains(known, name) {
			continue
		}
		if why, ok := nothing()[name]; ok {
			found = append(found, fmt.Sprintf("%s is set and means nothing here: %s", name, why))
			continue
		}
		if meant := nearest(name, known); meant != "" {
			found = append(found, fmt.Sprintf("%s is set and is no setting: did you mean %s?", name, meant))
		}
	}
	slices.Sort(found)
	return found
}

// nearest is the known name that differs least, if by no more than a slip of the fingers, else "".
func nearest(name string, known []string) string {
	best, least := "", farthest+1
	for _, k := range known {
		if len(k) < shortest || len(k)-len(name) > farthest || len(name)-len(k) > farthest {
			continue
		}
		if d := editdistance.Of(name, k); d < least {
			best, least = k, d
		}
	}
	return best
}
