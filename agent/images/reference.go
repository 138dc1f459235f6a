package images

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// normalize completes an image reference: a name without a registry host gets registry, one without tag and digest
// the tag latest. Docker would put docker.io there; a box at the edge has its own registry.
func normalize(ref, registry string) (string, error) {
	full := ref
	if !hasHost(ref) {
		full = registry + "/" + ref
	}
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", ref, err)
	}
	return reference.TagNameOnly(named).String(), nil
}

// hasHost says whether a reference begins with a registry's host, by the rule that all tools share: the first of
// several path elements is a host when it has a dot or a colon, or is "localhost".
func hasHost(ref string) bool {
	first, _, several := strings.Cut(ref, "/")
	return several && (strings.ContainsAny(first, ".:") || first == "localhost")
}

// registryHost returns the registry of a normalised reference.
func registryHost(name string) string {
	host, _, _ := strings.Cut(name, "/")
	return host
}
