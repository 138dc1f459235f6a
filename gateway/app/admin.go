package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edge-serverless-box/esb/gateway/adminapi"
	"github.com/edge-serverless-box/esb/gateway/internal/listener"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/edge-serverless-box/esb/gateway/settings"
	"github.com/edge-serverless-box/esb/guard/secretfile"
)

// openAdminToken reads the token of the operator's listener, or makes it; empty without that listener.
func openAdminToken(s settings.Settings) (string, error) {
	if s.AdminAddr == "" {
		return "", nil
	}
	token, err := secretfile.Open(s.AdminTokenFile())
	if err != nil {
		return "", fmt.Errorf("the admin listener's token: %w", err)
	}
	return token, nil
}

// openAdmin opens the operator's listener, which shows the metrics of registry.
func (a *App) openAdmin(ctx context.Context, token string, registry *prometheus.Registry, sockets *listener.Sockets) (*adminapi.Server, error) {
	return adminapi.Open(ctx, adminapi.Options{
		Addr:          a.settings.AdminAddr,
		Token:         token,
		Dependencies:  a.dependencies(),
		Pools:         a.pools,
		Configuration: a.configuration,
		Containers:    a.agent.Containers,
		Reload:        a.Reload,
		Async:         a.async,
		Schedules:     a.schedules.Snapshot,
		Sockets:       sockets,
		Registry:      registry,
		// The counters of pool and invoke, and those of the Go runtime.
		Gatherer: prometheus.DefaultGatherer,
		Logger:   a.log,
	})
}

// dependencies are what /readyz asks: the stores only as far as they are used.
func (a *App) dependencies() []adminapi.Dependency {
	all := []adminapi.Dependency{
		{Name: "agent", Check: a.agent.Health, Notes: a.agent.Notes},
		{Name: "gateway", Check: a.running},
		{Name: "configuration", Check: func(context.Context) error { return nil }, Notes: a.watcher.Notes},
		{Name: "functions", Check: a.code.Check, Notes: a.code.Notes},
		{Name: "async", Check: a.async.Check, Notes: a.async.Notes},
		{Name: "resources", Check: a.stores.CheckResources, Notes: a.stores.Notes},
	}
	if a.settings.S3.Endpoint != "" {
		all = append(all, adminapi.Dependency{Name: "s3", Check: a.stores.CheckS3})
	}
	if a.settings.DynamoDB.Endpoint != "" {
		all = append(all, adminapi.Dependency{Name: "dynamodb", Check: a.stores.CheckDynamoDB})
	}
	return all
}

// pools describes the pools, and why functions cannot be started at all.
func (a *App) pools() []pool.State {
	states, problems := a.pool.Snapshot(), a.code.Problems()
	for i := range states {
		if problem := problems[states[i].Function]; problem != "" {
			states[i].Error = problem
		}
	}
	return states
}

// configuration says whether what the files say is what holds.
func (a *App) configuration() adminapi.ConfigurationState {
	state := adminapi.ConfigurationState{Status: adminapi.ConfigurationOK}
	if list := a.substitutes.Load(); list != nil {
		state.Substitutes = *list
	}
	if r := a.watcher.Refused(); r != nil {
		state.Status, state.RefusedAt, state.Problems = adminapi.ConfigurationRefused, &r.At, r.Problems
	}
	return state
}

// running is the readiness of the gateway itself: not while it stops.
func (a *App) running(context.Context) error {
	if a.stopping.Load() {
		return errors.New("stopping")
	}
	return nil
}
