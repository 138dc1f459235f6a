package containerd

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/edge-serverless-box/esb/agent"
)

// archiveSettles is how old the last change of an archive must be before it is taken over unasked: who writes it does so in
// steps.
const archiveSettles = time.Second

// ImageVersions implements agent.Runtime. It costs two looks, at the folder of archives and at containerd's list of images, while
// nothing has changed, and waits for no registry.
func (r *Runtime) ImageVersions(ctx context.Context, refs []agent.ImageReference) ([]string, error) {
	names := make([]string, len(refs))
	var ask []string
	for i, ref := range refs {
		image := ref.Image
		if ref.Runtime != "" {
			// What runs a runtime may be an image that functions.yml names.
			image = codeImage(agent.FunctionCode{Base: ref.Runtime})
		}
		if image == "" {
			continue
		}
		name, err := normalize(image, r.images.registry)
		if err != nil {
			continue // a start says what is wrong with it
		}
		names[i] = name
		if ref.AskRegistry {
			ask = append(ask, name)
		}
	}
	r.images.watch.look(ask)
	versions, err := r.images.versions(ctx, names)
	if err != nil {
		return nil, fail(agent.CodeInternal, err)
	}
	return versions, nil
}

// versions returns the digests of images by their normalised names, "" for one that is not here.
func (s *imageStore) versions(ctx context.Context, names []string) ([]string, error) {
	files, _ := s.archives.changed("", archiveSettles) // what cannot be read is in the log, once
	for _, f := range files {
		wanted := slices.ContainsFunc(names, func(name string) bool {
			for _, n := range f.names {
				if name != "" && n == name {
					return true
				}
			}
			return false
		})
		if !wanted || !s.archives.tryOnce(f.path, f.stamp) {
			continue
		}
		if err := s.importOnce(ctx, f); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			s.log.WarnContext(ctx, "image archive cannot be imported, the image of before stays", "archive", f.path, "error", err)
		}
	}
	found, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the images: %w", err)
	}
	out := make([]string, len(names))
	for _, record := range found {
		for i, name := range names {
			if name == "" || name != record.Name {
				continue
			}
			known, ok := s.unpacked.Load(record.Target.Digest)
			if ok {
				out[i] = known.(image).manifest.String()
				continue
			}
			if !s.archives.tryOnce("image "+name, record.Target.Digest.String()) {
				continue
			}
			// Unpacked now, the first request need not.
			img, err := s.unpack(ctx, name)
			if err != nil {
				if ctx.Err() != nil {
					return nil, err
				}
				s.log.DebugContext(ctx, "image cannot be unpacked", "image", name, "error", err)
				continue
			}
			out[i] = img.manifest.String()
		}
	}
	return out, nil
}
