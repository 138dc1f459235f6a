package native

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOverall_StoreThatIsNotAvailable_DoesNotCount(t *testing.T) {
	missing := Service{Name: "db", State: NotAvailable}
	for name, c := range map[string]struct {
		services []Service
		want     State
	}{
		"healthy":   {[]Service{{State: Healthy}, missing, {State: Healthy}}, Healthy},
		"unhealthy": {[]Service{{State: Healthy}, missing, {State: Down}}, Unhealthy},
		"down":      {[]Service{{State: Down}, missing}, Down},
		"alone":     {[]Service{missing}, Down},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, Overall(c.services)) })
	}
}
