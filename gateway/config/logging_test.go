package config_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
)

func TestLoad_Logging_AsAWSsLoggingConfig(t *testing.T) {
	c := mustLoad(t, `
defaults:
  logging: {format: json, application_level: debug}
functions:
  plain: {image: a/a}
  own: {image: a/a, logging: {application_level: ERROR, system_level: WARN}}
  text: {image: a/a, logging: {format: Text}}
  rie: {image: a/a, runtime_interface: rie}
`, noRoutes)
	assert.Equal(t, gateway.Logging{JSON: true, ApplicationLevel: "DEBUG", SystemLevel: "INFO"}, c.Functions["plain"].Logging)
	assert.Equal(t, gateway.Logging{JSON: true, ApplicationLevel: "ERROR", SystemLevel: "WARN"}, c.Functions["own"].Logging)
	assert.Equal(t, gateway.Logging{}, c.Functions["text"].Logging)
	assert.Equal(t, gateway.Logging{}, c.Functions["rie"].Logging, "from defaults, which are for all functions")
	assert.Nil(t, c.Functions["text"].Logging.Environment())
	assert.Equal(t, map[string]string{"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "DEBUG", "ESB_SYSTEM_LOG_LEVEL": "INFO"},
		c.Functions["plain"].Logging.Environment())
	before := mustLoad(t, "functions: {own: {image: a/a}}\n", noRoutes).Functions["own"]
	after := mustLoad(t, "functions: {own: {image: a/a, logging: {format: json}}}\n", noRoutes).Functions["own"]
	assert.NotEqual(t, before.Generation, after.Generation)
}

func TestLoad_BadLogging_NamesLineAndKey(t *testing.T) {
	for entry, want := range map[string]string{
		"logging: {format: xml}":                                          "functions.yml:1: functions.f.logging.format: must be one of text, json, got \"xml\"",
		"logging: {application_level: INFO}":                              "functions.f.logging.application_level: needs format: json",
		"logging: {format: json, system_level: ERROR}":                    "functions.f.logging.system_level: must be one of DEBUG, INFO, WARN, got \"ERROR\"",
		"logging: {format: json, level: INFO}":                            "functions.f.logging.level",
		"logging: json":                                                   "functions.f.logging",
		"runtime_interface: rie, logging: {format: json}":                 "functions.f.logging: must be text with runtime_interface: rie",
		"environment: {AWS_LAMBDA_LOG_LEVEL: A}, logging: {format: json}": "functions.f.environment.AWS_LAMBDA_LOG_LEVEL: is set by logging: keep one",
		"environment: {ESB_SYSTEM_LOG_LEVEL: A}":                          "functions.f.environment.ESB_SYSTEM_LOG_LEVEL",
	} {
		_, err := load(t, "functions: {f: {image: a/a, "+entry+"}}\n", noRoutes)
		assert.ErrorContains(t, err, want, entry)
	}
}
