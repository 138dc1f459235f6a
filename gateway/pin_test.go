package gateway_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
)

func TestPinImage(t *testing.T) {
	for image, want := range map[string]string{
		"esb/echo":                         "esb/echo@sha256:1",
		"esb/echo:latest":                  "esb/echo@sha256:1",
		"registry.test:5000/esb/echo":      "registry.test:5000/esb/echo@sha256:1",
		"registry.test:5000/esb/echo:1.2":  "registry.test:5000/esb/echo@sha256:1",
		"esb/echo@sha256:0":                "esb/echo@sha256:1",
		"registry.test:5000/e:1@sha256:00": "registry.test:5000/e@sha256:1",
	} {
		assert.Equal(t, want, gateway.PinImage(image, "sha256:1"), image)
	}
}
