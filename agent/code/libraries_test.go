package code

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHasLibraries(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, root string)
		top  bool
		want bool
	}{
		"nothing":                                {top: true},
		"scripts in lib":                         {make: files("lib/app.js", "lib/node_modules/x/libx.so"), top: true},
		"a library in lib":                       {make: files("lib/libx.so.1.2"), want: true},
		"any object in lib":                      {make: files("lib/x.so"), want: true},
		"a library beside the code":              {make: files("libx.so"), top: true, want: true},
		"an extension module beside the code":    {make: files("_cffi.cpython-311-x86_64-linux-gnu.so"), top: true},
		"a library at the top of a layer":        {make: files("libx.so")},
		"libraries for some processors":          {make: files("lib/glibc-hwcaps/x86-64-v3/libx.so"), want: true},
		"libraries for some processors, at top":  {make: files("glibc-hwcaps/x"), top: true, want: true},
		"lib leads to what only the box can see": {make: link("/opt/python", "lib"), want: true},
		"lib is a file":                          {make: files("lib"), top: true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if c.make != nil {
				c.make(t, root)
			}
			got, err := hasLibraries(root, c.top)
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func files(names ...string) func(*testing.T, string) {
	return func(t *testing.T, root string) {
		for _, name := range names {
			file := filepath.Join(root, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, nil, 0o644))
		}
	}
}

func link(to, name string) func(*testing.T, string) {
	return func(t *testing.T, root string) { require.NoError(t, os.Symlink(to, filepath.Join(root, name))) }
}
