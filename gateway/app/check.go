package app

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/edge-serverless-box/esb/gateway/config"
	"github.com/edge-serverless-box/esb/gateway/containermetrics"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
	"github.com/edge-serverless-box/esb/gateway/route"
	"github.com/edge-serverless-box/esb/gateway/settings"
)

// Check reads the settings and the configuration files as Run does, starts nothing, and says what is in them. Its error,
// one problem a line, is for a person.
func Check(getenv func(string) string, out io.Writer) error {
	s, err := settings.Load(func(name string) string {
		value := getenv(name)
		if name == "JWT_SECRET_KEY" && value == "" {
			return "unset: it is made at the first start, and not by this look"
		}
		return value
	})
	if err != nil {
		return err
	}
	if len(s.HTTPSAddrs) > 0 && s.TLSCertFile != "" { // a development CA's would be made
		if _, err := openCertificate(s, slog.New(slog.DiscardHandler)); err != nil {
			return err
		}
	}
	cfg, err := config.Load(s.FunctionsConfigPath, s.RoutingConfigPath, configOptions(s))
	if err != nil {
		return err
	}
	if _, err := route.New(cfg.Routes); err != nil {
		return fmt.Errorf("%s: %w", s.RoutingConfigPath, err)
	}
	_, err = fmt.Fprintf(out, "%s and %s are right: functions %d, routes %d, buckets %d, tables %d\n",
		s.FunctionsConfigPath, s.RoutingConfigPath, len(cfg.Functions), len(cfg.Routes), len(cfg.Resources.Buckets), len(cfg.Resources.Tables))
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
	}
}
