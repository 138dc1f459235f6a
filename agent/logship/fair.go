package logship

import (
	"slices"
	"strings"
)

// owner is who the lines of a file are counted for: a function, whatever the number of its containers, or a service.
func (f *file) owner() string {
	o := f.source()
	return o.job + "/" + o.function
}

// backlog is the files of one owner that have lines to ship, in the order of their turns.
type backlog struct {
	owner string
	files []*file
}

// backlogs are those of all owners, in the order of their turns: who has had his last comes last, with each of his files likewise.
func (s *Shipper) backlogs() []*backlog {
	byOwner := map[string]*backlog{}
	var all []*backlog
	for _, f := range s.files {
		if f.size <= f.Offset || f.missing > 0 {
			continue
		}
		owner := f.owner()
		l := byOwner[owner]
		if l == nil {
			l = &backlog{owner: owner}
			byOwner[owner] = l
			all = append(all, l)
		}
		l.files = append(l.files, f)
	}
	for owner := range s.turns {
		if byOwner[owner] == nil {
			delete(s.turns, owner)
		}
	}
	for _, l := range all {
		slices.SortFunc(l.files, func(a, b *file) int { return strings.Compare(a.Name, b.Name) })
		l.files = after(l.files, func(f *file) bool { return f.Name > s.turns[l.owner] })
	}
	slices.SortFunc(all, func(a, b *backlog) int { return strings.Compare(a.owner, b.owner) })
	return after(all, func(l *backlog) bool { return l.owner > s.turn })
}

// after is a sorted list that begins with the first that is later, and goes around.
func after[T any](sorted []T, later func(T) bool) []T {
	if i := slices.IndexFunc(sorted, later); i > 0 {
		return slices.Concat(sorted[i:], sorted[:i])
	}
	return sorted
}

// gather makes a batch of what there is, nil when there is nothing. Each owner has his turn, and each of his files in it.
func (s *Shipper) gather() *batch {
	b := &batch{to: map[*file]cursor{}}
	for owners := s.backlogs(); len(owners) > 0 && !b.full; {
		owners = slices.DeleteFunc(owners, func(l *backlog) bool {
			if b.full {
				return false
			}
			f := l.files[0]
			more, err := s.take(f, b)
			if err != nil {
				s.trouble("a log file cannot be read", err)
			}
			s.turn, s.turns[l.owner] = l.owner, f.Name
			l.files = l.files[1:]
			if more && err == nil {
				l.files = append(l.files, f)
			}
			return len(l.files) == 0
		})
	}
	if b.lines == 0 && !b.skipped {
		return nil
	}
	return b
}

// dues says how much each owner of files has to give up so that need bytes come together: those who have most come down to the same
// level, and who has less gives nothing.
func dues(files []*file, need int64) map[string]int64 {
	has := map[string]int64{}
	for _, f := range files {
		has[f.owner()] += f.used
	}
	amounts := make([]int64, 0, len(has)+1)
	for _, n := range has {
		amounts = append(amounts, n)
	}
	slices.Sort(amounts)
	slices.Reverse(amounts)
	amounts = append(amounts, 0)
	level := int64(0)
	for i, sum := 0, int64(0); i < len(amounts)-1; i++ {
		sum += amounts[i]
		if count := int64(i + 1); sum-count*amounts[i+1] >= need {
			level = max((sum-need)/count, 0)
			break
		}
	}
	due := map[string]int64{}
	for owner, n := range has {
		if n > level {
			due[owner] = n - level
		}
	}
	return due
}
