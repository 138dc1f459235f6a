package imagebuild

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Config is how an image's process is started. A member that is empty leaves what the base image says.
type Config struct {
	Entrypoint []string
	Cmd        []string
	// Env is added to the base image's, name by name.
	Env        map[string]string
	WorkingDir string
	// User is "uid[:gid]" or a name of the image's /etc/passwd.
	User string
	// Labels are added to the base image's.
	Labels map[string]string
}

// Scratch returns an image without any layer, for this machine's architecture.
func Scratch() (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("empty image: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Created = v1.Time{Time: epoch}
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		return nil, fmt.Errorf("empty image: %w", err)
	}
	return img, nil
}

// Build puts layers on top of a base image and changes its settings. The base's layers stay as they are, digests
// included, so that images share them.
func Build(base v1.Image, config Config, layers ...v1.Layer) (v1.Image, error) {
	additions := make([]mutate.Addendum, len(layers))
	for i, layer := range layers {
		additions[i] = mutate.Addendum{
			Layer:     layer,
			History:   v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "esb-image"},
			MediaType: types.OCILayer,
		}
	}
	img, err := mutate.Append(base, additions...)
	if err != nil {
		return nil, fmt.Errorf("add layers: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's settings: %w", err)
	}
	file = file.DeepCopy()
	apply(&file.Config, config)
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		return nil, fmt.Errorf("change the image's settings: %w", err)
	}
	return img, nil
}

func apply(to *v1.Config, c Config) {
	if len(c.Entrypoint) > 0 {
		// As Docker: a new entrypoint drops the base's command.
		to.Entrypoint, to.Cmd = c.Entrypoint, nil
	}
	if len(c.Cmd) > 0 {
		to.Cmd = c.Cmd
	}
	if c.WorkingDir != "" {
		to.WorkingDir = c.WorkingDir
	}
	if c.User != "" {
		to.User = c.User
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		to.Env = slices.DeleteFunc(to.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		to.Env = append(to.Env, name+"="+c.Env[name])
	}
	if len(c.Labels) > 0 && to.Labels == nil {
		to.Labels = map[string]string{}
	}
	maps.Copy(to.Labels, c.Labels)
}
