package install

import (
	"bytes"
	_ "embed"
	"fmt"
	"text/template"

	"github.com/edge-serverless-box/esb/native/release"
)

//go:embed esb.service
var unitText string

// Unit is the unit of systemd that runs the box of an installation. Its paths are those without prefix: below one, an installation is
// tried or packed, and no service.
func Unit() (string, error) {
	t, err := template.New(release.Unit).Parse(unitText)
	if err != nil {
		return "", fmt.Errorf("make the unit: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, release.Layout{}); err != nil {
		return "", fmt.Errorf("make the unit: %w", err)
	}
	return out.String(), nil
}
