package app

import (
	"fmt"
	"slices"

	"github.com/edge-serverless-box/esb/gateway/authorizer"
	"github.com/edge-serverless-box/esb/gateway/config"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
	"github.com/edge-serverless-box/esb/gateway/route"
	"github.com/edge-serverless-box/esb/gateway/schedule"
	"github.com/edge-serverless-box/esb/gateway/throttle"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

// part is one thing that a configuration is for.
type part struct {
	name string
	// compile does all that can fail for a new configuration, and changes nothing that anybody sees. What it returns brings the
	// change, and cannot fail.
	compile func(cfg *config.Config) (swap func(), err error)
}

// guards hold requests back, and know of the ones before: what has not changed they share with the guards of the next
// configuration.
type guards struct {
	limits      *throttle.Set
	authorizers *authorizer.Set
}

// configurationParts are all that a configuration is for, at the start and at each reload. They are compiled in this order:
// what is quick first, then what may take seconds, and last what writes a file. They are swapped in the opposite order, so that
// who leads somewhere comes after where it leads to: no schedule, route or caller has a function before the pools have it.
func (a *App) configurationParts() []part {
	return append(a.fileParts(),
		part{"Lambda's API", func(cfg *config.Config) (func(), error) {
			return func() { a.lambda.SetFunctions(cfg.Functions) }, nil
		}},
		part{"queue", func(cfg *config.Config) (func(), error) {
			return func() { a.async.Apply(cfg.Functions) }, nil
		}},
		part{"substitutes", func(cfg *config.Config) (func(), error) {
			list := cfg.Substitutes()
			return func() { a.useSubstitutes(list) }, nil
		}},
		part{"pools", func(cfg *config.Config) (func(), error) {
			a.code.Look(cfg.Functions)
			return func() { a.code.Use(cfg.Functions) }, nil
		}},
		part{"resources", func(cfg *config.Config) (func(), error) {
			return func() { a.stores.Apply(cfg.Resources) }, nil
		}},
		part{"access to stores", a.compileStoreAccess},
	)
}

// fileParts are those that follow from the files alone: `check` compiles them where no gateway runs.
func (a *App) fileParts() []part {
	return []part{
		{"schedules", a.compileSchedules},
		{"requests", a.compileRequests},
	}
}

// apply makes a new configuration the current one, whole or not at all.
func (a *App) apply(cfg *config.Config) error {
	swaps, err := compile(a.parts, cfg)
	if err != nil {
		return err
	}
	for _, swap := range slices.Backward(swaps) {
		swap()
	}
	return nil
}

// compile compiles parts, up to the first that cannot be.
func compile(parts []part, cfg *config.Config) ([]func(), error) {
	swaps := make([]func(), 0, len(parts))
	for _, p := range parts {
		swap, err := p.compile(cfg)
		if err != nil {
			return nil, err
		}
		swaps = append(swaps, swap)
	}
	return swaps, nil
}

func (a *App) compileSchedules(cfg *config.Config) (func(), error) {
	set, err := schedule.Compile(cfg.Functions)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.settings.FunctionsConfigPath, err)
	}
	return func() { a.schedules.Use(set) }, nil
}

// compileRequests compiles what a request reads, which is one value.
func (a *App) compileRequests(cfg *config.Config) (func(), error) {
	matcher, err := route.New(cfg.Routes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.settings.RoutingConfigPath, err)
	}
	rules, err := a.auth.Compile(cfg.Access)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.settings.RoutingConfigPath, err)
	}
	before := a.guards
	authorizers, err := a.authorizers.Compile(cfg.Routes, before.authorizers)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.settings.RoutingConfigPath, err)
	}
	next := guards{limits: throttle.Compile(cfg.Access, cfg.Routes, before.limits), authorizers: authorizers}
	routing := &httpapi.Routing{
		Matcher: matcher, API: &cfg.API, Replies: cfg.Replies,
		CORS: cfg.Access.CORS, Throttle: cfg.Access.Throttle, Limits: next.limits, Auth: rules, Authorizers: authorizers,
	}
	return func() {
		a.guards = next
		a.http.Use(routing)
		a.auth.Use(rules) // ends the issuers that are gone, so after the last request that is judged by them has begun
	}, nil
}

// compileStoreAccess tells the stores what the functions may do there. The file is what they read, so this is the one step that is
// seen before the swap; nothing that can fail comes after it, and a file that cannot be written stays as it was.
func (a *App) compileStoreAccess(cfg *config.Config) (func(), error) {
	if err := functionaccess.Save(a.settings.FunctionAccessFile, storeAccess(cfg.Functions, a.settings.AccountID, a.keys)); err != nil {
		return nil, fmt.Errorf("FUNCTION_ACCESS_FILE: %w", err)
	}
	return func() {
		if a.settings.FunctionKeys && len(cfg.Functions) > 0 && !cfg.NamesStores {
			a.log.Warn("functions may use no bucket and no table, because functions.yml gives them none: say it with s3 and tables for each function, or, to open all to all, under defaults: "+
				`s3: [{bucket: "*", access: write}], tables: ["*"] (docs/stores.md; s3: [] under defaults ends this line)`, "file", a.settings.FunctionsConfigPath)
		}
	}, nil
}

// useSubstitutes logs which runtimes are run by others than they are named after, and keeps it for /configuration.
func (a *App) useSubstitutes(list []string) {
	a.substitutes.Store(&list)
	if len(list) > 0 {
		a.log.Info("runtimes that others run", "runtimes", list)
	}
}
