package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	core "github.com/containerd/containerd/v2/core/images"
)

// archiveSpare is how long an archive is spared by the bound of all, after it was written or its images were used: what was just made
// may have no function yet.
const archiveSpare = 24 * time.Hour

// idleArchive is an archive that nothing uses now.
type idleArchive struct {
	path  string
	bytes int64
	used  time.Time
}

// tendArchives removes the archives whose images nothing has used for too long, and the longest unused ones while all take too much.
func (s *Store) tendArchives(ctx context.Context, records []core.Image, running []string, now time.Time) error {
	if s.archivesUnusedFor <= 0 && s.archivesMaxBytes <= 0 {
		return nil
	}
	files, unread, err := s.archives.files()
	errs := []error{err}
	var all int64
	for _, path := range unread {
		if info, err := os.Stat(path); err == nil {
			all += info.Size()
		}
	}
	var idle []idleArchive
	for _, f := range files {
		info, err := os.Stat(f.path)
		if err != nil {
			continue // it has gone meanwhile
		}
		all += info.Size()
		if used, inUse := s.archiveUse(f, records, running, now); !inUse {
			idle = append(idle, idleArchive{f.path, info.Size(), used})
		}
	}
	slices.SortStableFunc(idle, func(a, b idleArchive) int { return a.used.Compare(b.used) })
	for _, a := range idle {
		var why string
		switch unused := now.Sub(a.used); {
		case s.archivesUnusedFor > 0 && unused > s.archivesUnusedFor:
			why = "nothing has used its images for longer than IMAGE_ARCHIVES_UNUSED_DAYS"
		case s.archivesMaxBytes > 0 && all > s.archivesMaxBytes && unused > archiveSpare:
			why = "archives take more than IMAGE_ARCHIVES_MAX_MB"
		default:
			continue
		}
		if err := os.Remove(a.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove an unused image archive: %w", err))
			continue
		}
		all -= a.bytes
		s.log.InfoContext(ctx, "image archive removed", "archive", a.path, "why", why, "used_at", a.used.UTC().Format(time.RFC3339))
	}
	return errors.Join(errs...)
}

// archiveUse says when an archive was written, or an image of it last used, and whether one is in use now, or one that functions made
// later may need. Of an image that containerd does not have it is known only what this process has seen.
func (s *Store) archiveUse(f archiveFile, records []core.Image, running []string, now time.Time) (used time.Time, inUse bool) {
	used = f.written
	for _, name := range f.names {
		if strings.Contains(name, bases) {
			return now, true
		}
		last := s.usage.last(name)
		if !last.IsZero() && now.Sub(last) < wantedFor {
			return now, true
		}
		if i := slices.IndexFunc(records, func(r core.Image) bool { return r.Name == name }); i >= 0 {
			img := s.describe(records[i], running, now)
			if img.InUse {
				return now, true
			}
			last = img.UsedAt
		} else if s.opened.After(last) {
			last = s.opened
		}
		if last.After(used) {
			used = last
		}
	}
	return used, false
}
