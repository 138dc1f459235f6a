package images

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// archiveSettles is how old the last change of an archive must be before it is taken over unasked: who writes it does so in
// steps.
const archiveSettles = time.Second

// triedImage begins what is noted of an image that was tried to be unpacked.
const triedImage = "image "

// Query asks for the version of an image.
type Query struct {
	// Image is its reference; empty asks for nothing.
	Image string
	// AskRegistry has its registry asked, in the background, whether it has another one under its tag.
	AskRegistry bool
}

// Versions returns the digests of images, "" for one that is not here. Archives that have changed are taken over first. It costs two
// looks, at the folder of archives and at containerd's list of images, while nothing has changed, and waits for no registry.
func (s *Store) Versions(ctx context.Context, queries []Query) ([]string, error) {
	names := make([]string, len(queries))
	var ask []string
	for i, q := range queries {
		if q.Image == "" {
			continue
		}
		name, err := normalize(q.Image, s.registry)
		if err != nil {
			continue // a start says what is wrong with it
		}
		names[i] = name
		s.usage.note(name)
		if q.AskRegistry {
			ask = append(ask, name)
		}
	}
	s.usage.hear()
	s.watch.look(ask)
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
				out[i] = known.(Image).Manifest.String()
				continue
			}
			if !s.archives.tryOnce(triedImage+name, record.Target.Digest.String()) {
				continue
			}
			// Unpacked now, the first request need not.
			img, err := s.Unpack(ctx, name)
			if err != nil {
				if ctx.Err() != nil {
					return nil, err
				}
				s.log.DebugContext(ctx, "image cannot be unpacked", "image", name, "error", err)
				continue
			}
			out[i] = img.Manifest.String()
		}
	}
	return out, nil
}
