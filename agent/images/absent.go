package images

import (
	"log/slog"
	"slices"
)

// Absent returns those of the names that no archive in a folder has: they have to come from the registries that their names begin
// with; registry is that of the others. The error says which archives cannot be read.
func Absent(dir, registry string, names []string) (absent []string, err error) {
	files, _, err := newArchives(dir, registry, slog.New(slog.DiscardHandler)).files()
	have := map[string]bool{}
	for _, f := range files {
		for _, name := range f.names {
			have[name] = true
		}
	}
	for _, name := range names {
		if full, nameErr := normalize(name, registry); nameErr != nil || !have[full] {
			absent = append(absent, name)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(absent))), err
}
