// Package setting has the settings of all services, which are environment variables: a table of their names, defaults and manual,
// and the reader that takes them. docs/settings.md, the names that guard/settingnames knows, the lists in the Compose files, and what
// makes `up` start a service again come from the table as well.
package setting

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Service is what reads settings.
type Service string

// The services, in the order of the manual.
const (
	Gateway Service = "gateway"
	Agent   Service = "agent"
	Native  Service = "esb up"
	Stores  Service = "stores"
	Relay   Service = "relay"
)

// Services are all that have settings.
func Services() []Service { return []Service{Gateway, Agent, Native, Stores, Relay} }

// Unit of a duration.
type Unit string

// Units of durations, as messages name them.
const (
	Milliseconds Unit = "milliseconds"
	Seconds      Unit = "seconds"
	Minutes      Unit = "minutes"
	Days         Unit = "days"
)

func (u Unit) duration() time.Duration {
	switch u {
	case Milliseconds:
		return time.Millisecond
	case Seconds:
		return time.Second
	case Minutes:
		return time.Minute
	case Days:
		return 24 * time.Hour
	}
	return 0
}

// Setting is what the manual of a service explains together: one environment variable, or some that belong together.
type Setting struct {
	// Names are the variables.
	Names []string
	// Default is the value of each that is not set. Empty is what the services that read the variable have in common (shared),
	// else none.
	Default string
	// Note is what the manual says after the default.
	Note string
	// Derived says in words what the service makes the default of; there is no other then.
	Derived string
	// Unit of a duration.
	Unit Unit
	// File is true for a secret that a file may hold, which NAME_FILE names: a variable shows in `docker inspect`, and in /proc.
	File bool
	// What is the manual. White space is one blank.
	What string
}

// Of returns the settings of a service in the order of the manual.
func Of(s Service) []Setting {
	switch s {
	case Gateway:
		return gateway()
	case Agent:
		return agent()
	case Native:
		return native()
	case Stores:
		return stores()
	case Relay:
		return relay()
	}
	return nil
}

// Names are the variables of all services, sorted.
func Names() []string {
	all := make(map[string]bool)
	for _, s := range Services() {
		for name := range variables(s) {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Reads says whether a variable is a setting of s.
func (s Service) Reads(name string) bool {
	_, ok := variables(s)[name]
	return ok
}

// variables are the settings of a service by the names of the variables, those of files included.
func variables(s Service) map[string]Setting {
	all := make(map[string]Setting)
	for _, e := range Of(s) {
		for _, name := range e.Variables() {
			all[name] = e
		}
	}
	return all
}

// Variables are the names with those of files.
func (s Setting) Variables() []string {
	if !s.File {
		return s.Names
	}
	var all []string
	for _, name := range s.Names {
		all = append(all, name, name+fileSuffix)
	}
	return all
}

// value is the default of one of the names, "" for none and for a derived one.
func (s Setting) value(name string) string {
	if s.Derived != "" || s.Default != "" {
		return s.Default
	}
	return shared()[name]
}

// Defaults says what the defaults are.
func (s Setting) Defaults() string {
	if s.Derived != "" {
		return s.Derived
	}
	var values []string
	for _, name := range s.Names {
		v := s.value(name)
		if v == "" {
			v = "none"
		}
		if !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	return strings.Join(values, "; ") + s.Note
}

// Manual is the text of the manual.
func (s Setting) Manual() string {
	text := strings.Join(strings.Fields(s.What), " ")
	if s.Unit != "" && !s.namesUnit() {
		text += " (" + string(s.Unit) + ")"
	}
	return text
}

// namesUnit is true when the name says the unit.
func (s Setting) namesUnit() bool {
	return s.Unit == Milliseconds && strings.HasSuffix(s.Names[0], "_MS") || strings.HasSuffix(s.Names[0], "_"+strings.ToUpper(string(s.Unit)))
}

// shared are the defaults that services have in common.
func shared() map[string]string {
	return map[string]string{
		"AGENT_GRPC_ADDR":             "127.0.0.1:50051",
		"AUTH_ENDPOINT_PATH":          "/user/auth/ver1.0",
		"AUTH_USER":                   "onpremise-user",
		"AWS_ACCOUNT_ID":              "123456789012",
		"AWS_REGION":                  "us-east-1",
		"DYNAMODB_ACCESS_KEY":         StoreAccessKey,
		"DYNAMODB_ENDPOINT":           "http://127.0.0.1:8001",
		"DYNAMODB_SECRET_KEY":         StoreSecretKey,
		"ESB_ALLOW_INSECURE_DEFAULTS": "false",
		"ESB_BRIDGE":                  "esb0",
		"ESB_HOME":                    "/var/lib/esb",
		"ESB_SUBNET":                  "10.88.0.0/16",
		"FUNCTION_UID_BASE":           "1879048192",
		"GATEWAY_ADMIN_ADDR":          "127.0.0.1:9443",
		"LOG_LEVEL":                   "INFO",
		"MAX_CONCURRENT_STARTS":       "0",
		"S3_ACCESS_KEY":               StoreAccessKey,
		"S3_ENDPOINT":                 "http://127.0.0.1:9000",
		"S3_SECRET_KEY":               StoreSecretKey,
		"SERVICE_LOG_MAX_MB":          "64",
		"SHUTDOWN_GRACE_SECONDS":      "30",
		"VICTORIALOGS_MAX_MB":         "2048",
	}
}

// The stores' credentials for development. A store refuses them where other machines reach it.
const (
	StoreAccessKey = "esb-dev-access"
	StoreSecretKey = "esb-dev-secret-change-in-production"
)
