package httpapi

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNewIDs(t *testing.T) {
	a, b := newIDs(), newIDs()
	parsed, err := uuid.Parse(a.request)
	require.NoError(t, err)
	assert.Equal(t, uuid.Version(4), parsed.Version())
	assert.Equal(t, uuid.RFC4122, parsed.Variant())
	assert.NotEqual(t, a.request, b.request)
	assert.Len(t, a.extended, 16)
	assert.NotEqual(t, a.extended, b.extended)
}

// TestTrace is section 6 of tests/conformance/rows.yml: Root, Parent and Sampled are all there.
func TestTrace(t *testing.T) {
	const (
		root = "1-5e6722a7-cc56fd46db7ae02d4da47e11"
		made = "Root=1-5e5ffd25-0a0a0a0a0a0a0a0a0a0a0a0a;Parent=0b0b0b0b0b0b0b0b;Sampled=0"
	)
	tests := []struct{ name, header, want string }{
		{"none", "", made},
		{"whole", "Root=" + root + ";Parent=53995c3f42cd8ad8;Sampled=1", "Root=" + root + ";Parent=53995c3f42cd8ad8;Sampled=1"},
		{"in another order", "Sampled=0; Parent=53995c3f42cd8ad8; Root=" + root, "Root=" + root + ";Parent=53995c3f42cd8ad8;Sampled=0"},
		{"root alone", "Root=" + root, "Root=" + root + ";Parent=0b0b0b0b0b0b0b0b;Sampled=0"},
		{"with parent", "Root=" + root + ";Parent=53995c3f42cd8ad8", "Root=" + root + ";Parent=53995c3f42cd8ad8;Sampled=1"},
		{"sampled without parent", "Root=" + root + ";Sampled=1", "Root=" + root + ";Parent=0b0b0b0b0b0b0b0b;Sampled=1"},
		{"lineage and self are kept", "Self=1-67891233-abcdef012345678912345678;Root=" + root + ";Lineage=a87bd80c:1|68fd508a:5", "Root=" + root + ";Parent=0b0b0b0b0b0b0b0b;Sampled=0;Self=1-67891233-abcdef012345678912345678;Lineage=a87bd80c:1|68fd508a:5"},
		{"what is unknown is dropped", "Root=" + root + ";Evil=1;Lineage=a\"b", "Root=" + root + ";Parent=0b0b0b0b0b0b0b0b;Sampled=0"},
		{"bad root", "Root=1-5e6722a7-cc56;Parent=53995c3f42cd8ad8;Sampled=1", made},
		{"no root", "Parent=53995c3f42cd8ad8;Sampled=1", made},
		{"bad parent", "Root=" + root + ";Parent=x;Sampled=?", "Root=" + root + ";Parent=0b0b0b0b0b0b0b0b;Sampled=0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var id ids
			for i := range id.root {
				id.root[i] = 0x0a
			}
			for i := range id.parent {
				id.parent[i] = 0x0b
			}
			assert.Equal(t, tt.want, id.trace(tt.header, time.Unix(1583349029, 0)))
		})
	}
}

func TestSourceIP(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:1234": "192.0.2.1", "[::1]:1234": "::1", "[fe80::1%eth0]:1": "fe80::1", "": "",
	} {
		assert.Equal(t, want, sourceIP(remote))
	}
}
