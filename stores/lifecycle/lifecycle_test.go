package lifecycle

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func wrap(rule string) []byte {
	return []byte(`<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule>` + rule + `</Rule></LifecycleConfiguration>`)
}

func TestParse(t *testing.T) {
	const on, all, day = "<Status>Enabled</Status>", "<Filter><Prefix></Prefix></Filter>", "<Expiration><Days>1</Days></Expiration>"
	for rule, want := range map[string]string{
		on + all + day:                     "",
		on + "<Prefix>old/</Prefix>" + day: "",
		on + "<Filter/>" + day:             "",
		on + "<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>" + day:                                                                                          "",
		on + all + "<Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration>":                                                                                    "",
		on + all + "<NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions></NoncurrentVersionExpiration>": "",
		on + all + "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>":                                     "",
		on + all:                              "InvalidRequest",
		all + day:                             "MalformedXML",
		on + day:                              "MalformedXML",
		on + all + "<Prefix>a</Prefix>" + day: "MalformedXML",
		"<Status>on</Status>" + all + day:     "MalformedXML",
		on + all + "<Expiration><Days>0</Days></Expiration>":                                     "InvalidArgument",
		on + all + "<Expiration><Days>x</Days></Expiration>":                                     "MalformedXML",
		on + all + "<Expiration/>":                                                               "MalformedXML",
		on + all + "<Expiration><Days>1</Days><Date>2030-01-01T00:00:00Z</Date></Expiration>":    "MalformedXML",
		on + all + "<Expiration><Date>2030-01-01T10:00:00Z</Date></Expiration>":                  "InvalidArgument",
		on + "<Filter><Prefix>a</Prefix><Tag><Key>a</Key></Tag></Filter>" + day:                  "MalformedXML",
		on + "<Filter><And><Prefix>a</Prefix></And></Filter>" + day:                              "MalformedXML",
		on + all + "<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>": "NotImplemented",
		on + all + "<NoncurrentVersionExpiration/>":                                              "MalformedXML",
		on + "<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>": "InvalidRequest",
	} {
		c, err := Parse(wrap(rule))
		if want == "" {
			require.NoError(t, err, rule)
			data, err := c.Marshal()
			require.NoError(t, err)
			again, err := Parse(data)
			require.NoError(t, err, "%s", data)
			assert.Equal(t, c.Rules, again.Rules)
			continue
		}
		var answer *Error
		require.ErrorAs(t, err, &answer, rule)
		assert.Equal(t, want, answer.Code, rule)
	}
	_, err := Parse([]byte("<LifecycleConfiguration/>"))
	require.Error(t, err)
}

// S3 user guide, "Lifecycle rules: based on an object's age": the time is the next midnight UTC after the days have passed.
func TestDays_EndAtMidnight(t *testing.T) {
	made := time.Date(2014, 1, 15, 10, 30, 0, 0, time.UTC)
	assert.Equal(t, time.Date(2014, 1, 19, 0, 0, 0, 0, time.UTC), after(made, 3))
	midnight := time.Date(2014, 1, 15, 0, 0, 0, 0, time.UTC)
	assert.Equal(t, midnight.AddDate(0, 0, 1), after(midnight, 1))
	e := &Expiration{Days: aws.Int32(3)}
	assert.False(t, e.due(made, time.Date(2014, 1, 18, 23, 59, 59, 0, time.UTC)))
	assert.True(t, e.due(made, time.Date(2014, 1, 19, 0, 0, 0, 0, time.UTC)))
}

func TestRules_AreKept_AndNamesOfNoBucketAreNone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rules")
	rules, err := Open(dir)
	require.NoError(t, err)
	c, err := Parse(wrap("<Status>Enabled</Status><Filter/><Expiration><Days>1</Days></Expiration>"))
	require.NoError(t, err)
	require.NoError(t, rules.Put("bucket", c))
	rules, err = Open(dir)
	require.NoError(t, err)
	got, ok, err := rules.Get("bucket")
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, c.Rules, got.Rules)
	buckets, err := rules.Buckets()
	require.NoError(t, err)
	assert.Equal(t, []string{"bucket"}, buckets)
	for _, name := range []string{"", "../x", ".x", "a/b"} {
		require.Error(t, rules.Put(name, c), name)
	}
	require.NoError(t, rules.Delete("bucket"))
	require.NoError(t, rules.Delete("bucket"))
	_, ok, err = rules.Get("bucket")
	require.NoError(t, err)
	assert.False(t, ok)
}

// fake is a bucket with versions.
type fake struct {
	API
	versions *s3.ListObjectVersionsOutput
	objects  *s3.ListObjectsV2Output
	uploads  *s3.ListMultipartUploadsOutput
	deleted  []string
}

func (f *fake) GetBucketVersioning(context.Context, *s3.GetBucketVersioningInput, ...func(*s3.Options)) (*s3.GetBucketVersioningOutput, error) {
	return &s3.GetBucketVersioningOutput{Status: types.BucketVersioningStatusEnabled}, nil
}

func (f *fake) ListObjectVersions(context.Context, *s3.ListObjectVersionsInput, ...func(*s3.Options)) (*s3.ListObjectVersionsOutput, error) {
	return f.versions, nil
}

func (f *fake) ListObjectsV2(context.Context, *s3.ListObjectsV2Input, ...func(*s3.Options)) (*s3.ListObjectsV2Output, error) {
	return f.objects, nil
}

func (f *fake) ListMultipartUploads(context.Context, *s3.ListMultipartUploadsInput, ...func(*s3.Options)) (*s3.ListMultipartUploadsOutput, error) {
	return f.uploads, nil
}

func (f *fake) AbortMultipartUpload(_ context.Context, in *s3.AbortMultipartUploadInput, _ ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error) {
	f.deleted = append(f.deleted, "upload "+*in.UploadId)
	return &s3.AbortMultipartUploadOutput{}, nil
}

func (f *fake) DeleteObject(_ context.Context, in *s3.DeleteObjectInput, _ ...func(*s3.Options)) (*s3.DeleteObjectOutput, error) {
	if in.VersionId == nil && in.IfMatch == nil {
		return nil, errors.New("an object may have been written meanwhile")
	}
	f.deleted = append(f.deleted, *in.Key+" "+aws.ToString(in.VersionId))
	return &s3.DeleteObjectOutput{}, nil
}

func TestSweep_DaysOfObjectsVersionsAndUploads(t *testing.T) {
	now := time.Date(2026, 6, 30, 12, 0, 0, 0, time.UTC)
	ago := func(days int) *time.Time { return aws.Time(now.AddDate(0, 0, -days)) }
	version := func(key, id string, days int, latest bool) types.ObjectVersion {
		return types.ObjectVersion{Key: &key, VersionId: &id, LastModified: ago(days), IsLatest: &latest}
	}
	marker := func(key, id string, days int, latest bool) types.DeleteMarkerEntry {
		return types.DeleteMarkerEntry{Key: &key, VersionId: &id, LastModified: ago(days), IsLatest: &latest}
	}
	api := &fake{
		objects: &s3.ListObjectsV2Output{Contents: []types.Object{
			{Key: aws.String("log/old"), ETag: aws.String("e"), LastModified: ago(40), Size: aws.Int64(10)},
			{Key: aws.String("log/new"), ETag: aws.String("e"), LastModified: ago(4), Size: aws.Int64(10)},
			{Key: aws.String("log/small"), ETag: aws.String("e"), LastModified: ago(40), Size: aws.Int64(1)},
		}},
		versions: &s3.ListObjectVersionsOutput{
			Versions: []types.ObjectVersion{
				version("a", "4", 1, true), version("a", "3", 20, false), version("a", "2", 50, false), version("a", "1", 60, false),
				version("b", "1", 90, false), version("d", "1", 50, false), version("young", "2", 3, true), version("young", "1", 50, false),
			},
			DeleteMarkers: []types.DeleteMarkerEntry{marker("b", "2", 80, true), marker("c", "1", 1, true), marker("d", "2", 5, true)},
		},
		uploads: &s3.ListMultipartUploadsOutput{Uploads: []types.MultipartUpload{
			{Key: aws.String("u"), UploadId: aws.String("old"), Initiated: ago(9)}, {Key: aws.String("u"), UploadId: aws.String("new"), Initiated: ago(6)},
		}},
	}
	rules, err := Open(t.TempDir())
	require.NoError(t, err)
	c, err := Parse([]byte(`<LifecycleConfiguration>
		<Rule><Status>Enabled</Status><Filter><And><Prefix>log/</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter><Expiration><Days>30</Days></Expiration></Rule>
		<Rule><Status>Enabled</Status><Filter/><NoncurrentVersionExpiration><NoncurrentDays>10</NoncurrentDays><NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>
		<Rule><Status>Enabled</Status><Filter><Prefix>b</Prefix></Filter><NoncurrentVersionExpiration><NoncurrentDays>10</NoncurrentDays></NoncurrentVersionExpiration></Rule>
		<Rule><Status>Enabled</Status><Filter/><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration></Rule>
		<Rule><Status>Enabled</Status><Filter/><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>
	</LifecycleConfiguration>`))
	require.NoError(t, err)
	require.NoError(t, rules.Put("bucket", c))
	s := New(api, rules)
	s.now = func() time.Time { return now }
	n, err := s.Sweep(t.Context())
	require.NoError(t, err)
	slices.Sort(api.deleted)
	// Of "a", the newest old version stays, and the others are old for longer than ten days: 2 since 20 days, 1 since 50. Of "b" all
	// that is left is a marker, which goes too; of "d" the one old version stays, and with it its marker.
	assert.Equal(t, []string{"a 1", "a 2", "b 1", "b 2", "c 1", "log/old ", "upload old"}, api.deleted)
	assert.Equal(t, len(api.deleted), n)
}
