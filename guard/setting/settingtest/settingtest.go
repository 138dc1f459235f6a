// Package settingtest is for tests of what reads settings.
package settingtest

import (
	"slices"

	"github.com/edge-serverless-box/esb/guard/setting"
)

// Unread are the variables that the table declares for a service and load, which reads all settings, does not ask for when nothing
// is set.
func Unread(service setting.Service, load func(getenv func(string) string)) []string {
	var unread []string
	for _, s := range setting.Of(service) {
		unread = append(unread, s.Variables()...)
	}
	load(func(name string) string {
		unread = slices.DeleteFunc(unread, func(n string) bool { return n == name })
		return ""
	})
	return unread
}
