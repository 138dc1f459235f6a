package samples

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
)

// baseName takes the names of base images apart: "esb/runtime-python:3.11".
var baseName = regexp.MustCompile(`(?:^|/)esb/runtime-(?:(python):(3\.\d+)|(nodejs):(\d+)|(provided):latest)$`)

// Runtimes returns AWS's names of the runtimes whose base images are among the archives in a folder, sorted. Archives that cannot
// be read are left out: whoever imports them says why.
func Runtimes(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return nil, fmt.Errorf("look for images: %w", err)
	}
	var names []string
	for _, file := range files {
		annotations, err := imagebuild.Annotations(file)
		if err != nil {
			continue
		}
		m := baseName.FindStringSubmatch(annotations[imagebuild.AnnotationImageName])
		switch {
		case m == nil:
		case m[1] != "":
			names = append(names, m[1]+m[2])
		case m[3] != "":
			names = append(names, m[3]+m[4]+".x")
		default:
			names = append(names, "provided.al2", "provided.al2023")
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
