package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/config"
)

// The settings that an operator gives outrank what the repository ships: IDLE_TIMEOUT_MINUTES=15 docker compose up -d.
func TestLoad_ShippedFiles_LeaveTheIdleTimeoutToTheSetting(t *testing.T) {
	o := options()
	o.IdleTimeout = 15 * time.Minute
	c, err := config.Load("../../functions/functions.yml", "../../functions/routing.yml", o)
	require.NoError(t, err)
	require.NotEmpty(t, c.Functions)
	for name, f := range c.Functions {
		assert.Equal(t, 15*time.Minute, f.Scaling.IdleTimeout, name)
	}
}
