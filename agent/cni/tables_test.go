package cni

import (
	"testing"

	googlenft "github.com/google/nftables"
	"github.com/stretchr/testify/require"
)

// mustTables lists the names of all tables of the packet filter.
func mustTables(t *testing.T) []string {
	t.Helper()
	conn, err := googlenft.New()
	require.NoError(t, err)
	tables, err := conn.ListTables()
	require.NoError(t, err)
	names := make([]string, 0, len(tables))
	for _, table := range tables {
		names = append(names, table.Name)
	}
	return names
}
