package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/edge-serverless-box/esb/gateway/auth"
	"github.com/edge-serverless-box/esb/gateway/authorizer"
	"github.com/edge-serverless-box/esb/gateway/codewatch"
	"github.com/edge-serverless-box/esb/gateway/config"
	"github.com/edge-serverless-box/esb/gateway/containermetrics"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
	"github.com/edge-serverless-box/esb/gateway/settings"
)

// Options of the command check.
const (
	// CheckAsReload finds what a reload refuses, and no more: code that is not there is waited for.
	CheckAsReload = "-as-reload"
	// CheckJSON prints Findings.
	CheckJSON = "-json"
)

// Findings is what Check has found in files that are right.
type Findings struct {
	// Summary says what is in them.
	Summary string `json:"summary"`
	// Images are where functions name their images. Whether the box has them is the agent's to know.
	Images []NamedImage `json:"images"`
}

// NamedImage is an image and where a file names it, as problems begin.
type NamedImage struct {
	Place string `json:"place"`
	Image string `json:"image"`
}

// Check reads the settings and the configuration files as Run does, and compiles what a reload compiles. It starts nothing, and
// changes nothing. With code, the local code of functions must be there, too, for which a gateway waits. Its error, one problem a line,
// is for a person, and has all of them.
func Check(ctx context.Context, getenv func(string) string, code bool) (Findings, error) {
	s, err := settings.Load(func(name string) string {
		value := getenv(name)
		if name == "JWT_SECRET_KEY" && value == "" {
			return "unset: it is made at the first start, and not by this look"
		}
		return value
	})
	if err != nil {
		return Findings{}, err // what follows depends on them
	}
	var problems []error
	if len(s.HTTPSAddrs) > 0 && s.TLSCertFile != "" { // a development CA's would be made
		_, err := openCertificate(s, slog.New(slog.DiscardHandler))
		problems = append(problems, err)
	}
	var found Findings
	var places []config.Place
	cfg, err := config.Load(s.FunctionsConfigPath, s.RoutingConfigPath, configOptions(s))
	if err == nil {
		problems = append(problems, compiled(s, cfg))
		places = cfg.Code
		found.Summary = fmt.Sprintf("%s and %s are right: functions %d, routes %d, buckets %d, tables %d",
			s.FunctionsConfigPath, s.RoutingConfigPath, len(cfg.Functions), len(cfg.Routes), len(cfg.Resources.Buckets), len(cfg.Resources.Tables))
		for _, p := range cfg.Images {
			found.Images = append(found.Images, NamedImage{Place: fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Key), Image: p.Value})
		}
	}
	var refused *config.Error
	if errors.As(err, &refused) {
		places = refused.Code
	}
	problems = append(problems, err)
	if code {
		problems = append(problems, look(ctx, places, s.S3.Endpoint != "")...)
	}
	return found, errors.Join(problems...)
}

// compiled compiles what follows from the files alone, all of it.
func compiled(s settings.Settings, cfg *config.Config) error {
	quiet := slog.New(slog.DiscardHandler)
	a := &App{settings: s, log: quiet, issuers: auth.OpenIssuers(auth.IssuersOptions{Dir: filepath.Join(s.Home, "jwks"), Logger: quiet})}
	var err error
	if a.auth, err = authenticator(s, a.issuers); err != nil {
		return err
	}
	a.authorizers = authorizer.New(authorizer.Options{Region: s.Region, Logger: quiet})
	defer a.authorizers.Close()
	var problems []error
	for _, p := range a.fileParts() {
		_, err := p.compile(cfg)
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// look looks at local code, each once however many functions have it.
func look(ctx context.Context, places []config.Place, store bool) []error {
	var problems []error
	seen := map[string]error{}
	for _, p := range places {
		err, known := seen[p.Value]
		if !known {
			err = codewatch.Look(ctx, p.Value, store)
			seen[p.Value] = err
		}
		if err != nil {
			problems = append(problems, &config.Error{Problems: []config.Problem{p.Problem("the code cannot be used: %v", err)}})
		}
	}
	return problems
}

// check is Check for an operator.
func check(ctx context.Context, getenv func(string) string, options []string, out io.Writer) error {
	found, err := Check(ctx, getenv, !slices.Contains(options, CheckAsReload))
	if err != nil {
		return err
	}
	if slices.Contains(options, CheckJSON) {
		err = json.NewEncoder(out).Encode(found)
	} else {
		_, err = fmt.Fprintln(out, found.Summary)
	}
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return nil
}

// configOptions are what the configuration files depend on.
func configOptions(s settings.Settings) config.Options {
	reserved := map[string]string{
		s.AuthEndpointPath:    "the login (AUTH_ENDPOINT_PATH)",
		httpapi.HealthPath:    "the gateway's health check",
		containermetrics.Path: "the containers' metrics",
		// AWS: important notes for REST APIs.
		"/ping":  "reserved for the health check of API Gateway",
		"/sping": "reserved for the health check of API Gateway",
	}
	for _, prefix := range lambdaapi.Prefixes() {
		reserved[prefix] = "Lambda's API"
	}
	return config.Options{
		IdleTimeout:       s.IdleTimeout,
		Runtimes:          s.FunctionRuntimes,
		ReservedPaths:     reserved,
		ResourcesPath:     s.ResourcesConfigPath,
		ResourcesOptional: s.ResourcesOptional,
		KeptPath:          filepath.Join(s.Home, "configuration.json"),
	}
}
