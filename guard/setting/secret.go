package setting

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a text that no log line and no error shows; string(s) reveals it.
type Secret string

const redacted = "[redacted]"

// Format implements fmt.Formatter: no verb shows a secret.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
