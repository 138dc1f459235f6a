package runtimes

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOlderThan_ComparesNumbers(t *testing.T) {
	for version, want := range map[string]bool{"1.29.27+repack-1": true, "1.31.0-1": false, "1.37.9+repack-1": false, "2.0": false, "1": true, "1.100": false} {
		assert.Equal(t, want, olderThan(version, oldestBotocore), version)
	}
}

// Debian's botocore takes the errors from requests; ours must be importable without it.
func TestWithoutRequests_ErrorsStandAlone(t *testing.T) {
	root := t.TempDir()
	botocore := filepath.Join(root, "botocore")
	require.NoError(t, os.MkdirAll(botocore, 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "urllib3"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "urllib3", "__init__.py"), []byte("class exceptions:\n    class ReadTimeoutError(Exception): pass\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(botocore, "__init__.py"), nil, 0o600))
	source := filepath.Join(botocore, "exceptions.py")
	require.NoError(t, os.WriteFile(source, []byte("import requests\nfrom requests.packages import urllib3\n"+
		"class SSLError(requests.exceptions.SSLError): pass\nclass ReadTimeoutError(requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError): pass\n"+
		"class ConnectTimeoutError(requests.exceptions.ConnectTimeout): pass\nclass ProxyConnectionError(requests.exceptions.ProxyError): pass\n"), 0o600))
	require.NoError(t, withoutRequests(botocore))
	require.NoError(t, withoutRequests(botocore), "a second time changes nothing")
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed on this machine")
	}
	cmd := exec.Command("python3", "-S", "-c", "import sys; sys.path.insert(0, '"+root+"'); import botocore.exceptions as e; print(issubclass(e.SSLError, IOError), 'requests' in sys.modules)")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + root, "PYTHONDONTWRITEBYTECODE=1"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Equal(t, "True False\n", string(out))

	require.NoError(t, os.WriteFile(source, []byte("import requests as r\n"), 0o600))
	assert.ErrorContains(t, withoutRequests(botocore), "imports requests in a way that is not known")
}

func TestRemoveBrowsers_LeavesWhatNodeReads(t *testing.T) {
	modules := t.TempDir()
	for _, name := range []string{"@aws-sdk/client-s3/dist-cjs/index.js", "@aws-sdk/client-s3/dist-es/index.js", "@aws-sdk/client-s3/dist-types/index.d.ts",
		"@aws-sdk/client-s3/package.json", "@aws-sdk/client-s3/README.md", "@smithy/core/dist-es/index.js", "fflate/esm/index.mjs", "fflate/lib/node.d.cts",
		"other/dist-es/index.js", "tslib/tslib.js.map", "@aws-sdk/client-s3/LICENSE"} {
		require.NoError(t, writeFile(modules, name, []byte("x")))
	}
	require.NoError(t, removeBrowsers(modules))
	var left []string
	require.NoError(t, filepath.WalkDir(modules, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			relative, _ := filepath.Rel(modules, path)
			left = append(left, relative)
		}
		return err
	}))
	assert.Equal(t, []string{"@aws-sdk/client-s3/LICENSE", "@aws-sdk/client-s3/dist-cjs/index.js", "@aws-sdk/client-s3/package.json", "fflate/esm/index.mjs",
		"other/dist-es/index.js"}, left)
}
