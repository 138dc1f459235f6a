// Package stores holds the domain of the native way's stores: the stand-ins for S3, the DynamoDB API, VictoriaLogs and
// the image registry that run as child processes of one supervising program. It depends on nothing but the standard
// library; each package below it does one job, and app puts them together.
//
// Every store's process listens on a loopback port of a network namespace of its own, which this program alone reaches.
// What clients connect to are this program's listeners: they stay open while a process is restarted, exist on the box's
// address before the function network does, and check what the processes do not.
package stores

import (
	"fmt"
	"slices"
	"strings"
)

// Store names one store: on the command line, of its log file and of its data folder.
type Store string

// The stores, in the order of their start.
const (
	// Logs is VictoriaLogs.
	Logs Store = "logs"
	// S3 is versitygw.
	S3 Store = "s3"
	// DB is dynoxide, the DynamoDB API.
	DB Store = "db"
	// Registry is the OCI registry of CNCF distribution.
	Registry Store = "registry"
)

// All returns every store in the order of start; they are stopped in the opposite one.
func All() []Store { return []Store{Logs, S3, DB, Registry} }

// Parse reads the names of stores.
func Parse(names []string) ([]Store, error) {
	known := All()
	var parsed []Store
	for _, name := range names {
		if !slices.Contains(known, Store(name)) {
			return nil, fmt.Errorf("there is no store %q: there are %s", name, strings.Trim(fmt.Sprint(known), "[]"))
		}
		parsed = append(parsed, Store(name))
	}
	return parsed, nil
}

// HealthPath is the URL path whose answer is 200, without credentials, when the store works.
func (s Store) HealthPath() string {
	switch s {
	case Logs:
		return "/health"
	case S3:
		return "/_health"
	case Registry:
		return "/health"
	case DB:
	}
	return "/"
}
