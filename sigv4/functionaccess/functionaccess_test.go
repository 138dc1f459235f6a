package functionaccess_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "ab", false},
		{"*", "", true}, {"*", "anything", true},
		{"a*", "a", true}, {"a*", "abc", true}, {"a*", "ba", false},
		{"*a", "ba", true}, {"*a", "ab", false},
		{"a*c*e", "abcde", true}, {"a*c*e", "abde", false}, {"a*c*e", "ace", true},
		{"a*a", "a", false}, {"a*b*b", "ab", false}, {"**", "x", true},
	} {
		assert.Equal(t, c.want, functionaccess.Matches(c.pattern, c.name), "%s %s", c.pattern, c.name)
	}
}

func TestRights(t *testing.T) {
	l := functionaccess.List{Account: "1", CodeBuckets: []string{"code"}, Functions: map[string]functionaccess.Function{
		"KEY": {
			Name: "f",
			S3: []functionaccess.Objects{
				{Bucket: "all", Access: functionaccess.Write}, {Bucket: "some", Prefix: "mine/", Access: functionaccess.Write},
				{Bucket: "some", Prefix: "shared/", Access: functionaccess.Read}, {Bucket: "code*", Access: functionaccess.Write},
			},
			Tables: []functionaccess.Table{{Table: "t", Access: functionaccess.Write}, {Table: "r-*", Access: functionaccess.Read}},
		},
		"NOTHING": {Name: "g"},
	}}
	_, ok := l.Rights("OTHER")
	assert.False(t, ok)
	r, ok := l.Rights("KEY")
	require.True(t, ok)
	const read, write = functionaccess.Read, functionaccess.Write
	for _, c := range []struct {
		bucket, key string
		wanted      functionaccess.Access
		want        bool
	}{
		{"all", "k", write, true}, {"all", "k", read, true}, {"other", "k", read, false},
		{"some", "mine/k", write, true}, {"some", "mine", read, false}, {"some", "shared/k", read, true}, {"some", "shared/k", write, false}, {"some", "", read, false},
		{"code", "k", read, true}, {"code", "k", write, false}, {"code2", "k", write, true},
	} {
		assert.Equal(t, c.want, r.Object(c.bucket, c.key, c.wanted), "%v", c)
	}
	assert.True(t, r.Bucket("some"))
	assert.False(t, r.Bucket("other"))
	assert.False(t, r.AllBuckets())
	assert.True(t, r.Items("t", write))
	assert.True(t, r.Items("r-1", read))
	assert.False(t, r.Items("r-1", write))
	assert.False(t, r.Items("x", read))
	assert.False(t, r.AllTables(read))
	r, ok = l.Rights("NOTHING")
	require.True(t, ok)
	assert.False(t, r.Object("all", "k", read) || r.Items("t", read) || r.Bucket("all"))
}

func TestFile_SaysWhatWasSavedLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "function-access.json")
	file := functionaccess.NewFile(path, slog.New(slog.DiscardHandler))
	has := func(id string) bool { _, ok := file.Rights(id); return ok }
	assert.False(t, has("A"), "nobody has written it yet")
	of := func(ids ...string) functionaccess.List {
		l := functionaccess.List{Functions: map[string]functionaccess.Function{}}
		for _, id := range ids {
			l.Functions[id] = functionaccess.Function{Name: id}
		}
		return l
	}
	require.NoError(t, functionaccess.Save(path, of("A")))
	assert.True(t, has("A"))
	require.NoError(t, functionaccess.Save(path, of("B")))
	assert.False(t, has("A"), "its function is gone")
	assert.True(t, has("B"))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o640), info.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1)

	require.NoError(t, functionaccess.Save(path, of("A")))
	require.NoError(t, os.Chmod(path, 0o666))
	assert.False(t, has("A"), "anybody may have written that")
	assert.True(t, has("B"))
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	assert.True(t, has("B"), "what was read stays")
	require.NoError(t, os.Remove(path))
	assert.True(t, has("B"))
	require.ErrorContains(t, functionaccess.Save(filepath.Join(path, "none"), of()), "write what functions may do")
}
