//go:build !race

package rawconn_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestConn_AllocatesNothing(t *testing.T) {
	own, other := mustPair(t)
	p := []byte("0123456789")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		_, err := own.Write(p)
		if err == nil {
			_, err = other.Read(p)
		}
		if err == nil {
			_, err = other.Write(p)
		}
		if err == nil {
			_, err = own.Read(p)
		}
		if err != nil {
			panic(err)
		}
	}))
}
