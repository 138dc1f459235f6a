// Package autoexport stands in for go.opentelemetry.io/contrib/exporters/autoexport when the registry is compiled (the replace line of
// ../go.mod). The package of distribution's traces imports it, which the registry's handlers import for a name; nobody here exports
// traces, and with it come three protocols of them, and those of metrics and logs.
package autoexport

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/sdk/trace"
)

// NewSpanExporter returns no exporter: its error says so.
func NewSpanExporter(context.Context) (trace.SpanExporter, error) {
	return nil, errors.New("this registry exports no traces")
}
