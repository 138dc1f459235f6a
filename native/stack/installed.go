package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/edge-serverless-box/esb/guard/statefile"
	"github.com/edge-serverless-box/esb/native/release"
)

// broughtImage is an image archive of a release as it was put into the box's folder.
type broughtImage struct {
	Digest string    `json:"digest"`
	Size   int64     `json:"size"`
	Time   time.Time `json:"time"`
}

// imagesFile notes what bringImages has brought.
func (s *Stack) imagesFile() string { return filepath.Join(s.settings.RunDir(), "images.json") }

type broughtImages struct {
	Images map[string]broughtImage `json:"images"`
}

// bringImages puts the image archives of the present release into the box's folder of archives. One that somebody has changed there since
// is left as it is.
func (s *Stack) bringImages(ctx context.Context) error {
	return s.console.Step("bringing the images of the release", func() error {
		if err := os.MkdirAll(s.settings.ImagesDir, 0o755); err != nil {
			return fmt.Errorf("make the image folder: %w", err)
		}
		note := s.imagesFile()
		known := broughtImages{}
		_ = statefile.Images().Read(note, &known) // one that is of no use is none: they are all brought again
		brought := known.Images
		if brought == nil {
			brought = map[string]broughtImage{}
		}
		archives, err := filepath.Glob(filepath.Join(s.layout.Current(), release.Images, "*.tar"))
		if err != nil {
			return fmt.Errorf("list the images of the release: %w", err)
		}
		sums, err := release.Checksums(s.layout.Current())
		if err != nil {
			return err
		}
		var errs []error
		for _, archive := range archives {
			name := filepath.Base(archive)
			digest := sums[release.Images+"/"+name]
			target := filepath.Join(s.settings.ImagesDir, name)
			if info, err := os.Stat(target); err == nil {
				was, known := brought[name]
				if known && (info.Size() != was.Size || !info.ModTime().Equal(was.Time)) {
					// A release's archive may be there without a note, too: of a start that was broken off in between.
					has, err := release.Digest(target)
					switch {
					case err != nil:
						errs = append(errs, fmt.Errorf("read the image archive %s: %w", target, err))
						continue
					case has == digest:
						brought[name] = broughtImage{Digest: digest, Size: info.Size(), Time: info.ModTime().UTC()}
						continue
					case has != was.Digest:
						s.once("%s is not the release's any more, and stays as it is", target)
						continue
					}
				}
				if known && was.Digest == digest {
					continue
				}
			}
			info, err := release.Replace(archive, target)
			if err != nil {
				errs = append(errs, fmt.Errorf("bring the image archive %s: %w", name, err))
				continue
			}
			brought[name] = broughtImage{Digest: digest, Size: info.Size(), Time: info.ModTime().UTC()}
			errs = append(errs, statefile.Images().Write(note, broughtImages{brought}, 0o600))
		}
		errs = append(errs, statefile.Images().Write(note, broughtImages{brought}, 0o600))
		if err := errors.Join(errs...); err != nil {
			return err
		}
		return s.askRuntimes(ctx)
	})
}
