package debian

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Libraries returns the shared libraries below root that the given ELF files need, directly and through each other:
// library name to path. have holds names that are provided otherwise; a library that is nowhere is an error.
func Libraries(root string, have map[string]bool, files ...string) (map[string]string, error) {
	dirs, err := libraryDirs(root)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for queue := slices.Clone(files); len(queue) > 0; queue = queue[1:] {
		needed, err := importedLibraries(queue[0])
		if err != nil {
			return nil, err
		}
		for _, name := range needed {
			if have[name] || found[name] != "" {
				continue
			}
			path := search(dirs, name)
			if path == "" {
				return nil, fmt.Errorf("%s needs %s, which none of the unpacked packages has", queue[0], name)
			}
			found[name] = path
			queue = append(queue, path)
		}
	}
	return found, nil
}

// Loader returns the program interpreter of an ELF file, "/lib64/ld-linux-x86-64.so.2".
func Loader(file string) (string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz == 0 {
			continue
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			return "", fmt.Errorf("read %s: %w", file, err)
		}
		return string(name[:len(name)-1]), nil // without the terminating 0
	}
	return "", fmt.Errorf("%s is not dynamically linked", file)
}

func importedLibraries(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	defer func() { _ = f.Close() }()
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return names, nil
}

// libraryDirs are the folders in which Debian keeps libraries: one per architecture, and the plain ones.
func libraryDirs(root string) ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu*"))
	if err != nil {
		return nil, err
	}
	return append(dirs, filepath.Join(root, "usr/lib"), filepath.Join(root, "usr/lib64")), nil
}

func search(dirs []string, name string) string {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}
