package stores

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/sigv4test"
)

// partSize is the least size of a part that is not the last (S3: 5 MiB).
const partSize = 5 << 20

// s3Store is the S3 under test.
type s3Store struct {
	*s3.Client
	target target
	// owner makes buckets and removes them, which functions may not.
	owner *s3.Client
	// bucket is shared by the checks; each uses keys of its own.
	bucket string
}

func newS3Client(at target) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(at.endpoint),
		Region:       at.region,
		Credentials:  credentials.NewStaticCredentialsProvider(at.accessKey, at.secretKey, at.sessionToken),
		UsePathStyle: true,
		// An answer that is an error by design must not be asked for again.
		RetryMaxAttempts: 1,
	})
}

func TestS3(t *testing.T) {
	at, gaps := s3Target(t)
	for _, caller := range at.callers() {
		t.Run(caller.who, func(t *testing.T) {
			store := &s3Store{Client: newS3Client(caller.target), owner: newS3Client(at), target: caller.target}
			store.bucket = store.mustMakeBucket(t)
			perform(t, store, caller.gaps(gaps, notForFunctionsS3), s3Checks())
		})
	}
}

func s3Checks() []check[*s3Store] {
	return []check[*s3Store]{
		// Buckets.
		{"bucket that was made is there", func(t testing.TB, s *s3Store) {
			bucket := s.mustMakeBucket(t)
			_, err := s.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &bucket})
			require.NoError(t, err)
		}},
		{"bucket made twice is refused", func(t testing.TB, s *s3Store) {
			_, err := s.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &s.bucket})
			requireCode(t, err, "BucketAlreadyOwnedByYou", "BucketAlreadyExists")
		}},
		{"bucket name with capitals is refused", func(t testing.TB, s *s3Store) {
			_, err := s.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("Not_A_Bucket")})
			requireCode(t, err, "InvalidBucketName")
		}},
		{"buckets are listed", func(t testing.TB, s *s3Store) {
			out, err := s.ListBuckets(t.Context(), &s3.ListBucketsInput{})
			require.NoError(t, err)
			var names []string
			for _, b := range out.Buckets {
				names = append(names, *b.Name)
			}
			assert.Contains(t, names, s.bucket)
		}},
		{"missing bucket is not found", func(t testing.TB, s *s3Store) {
			_, err := s.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("no-such-bucket-here")})
			requireStatus(t, err, http.StatusNotFound)
			_, err = s.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("no-such-bucket-here")})
			requireCode(t, err, "NoSuchBucket")
		}},
		{"bucket has a location", func(t testing.TB, s *s3Store) {
			out, err := s.GetBucketLocation(t.Context(), &s3.GetBucketLocationInput{Bucket: &s.bucket})
			require.NoError(t, err)
			assert.Contains(t, []string{"", s.target.region}, string(out.LocationConstraint))
		}},
		{"bucket with objects is not deleted", func(t testing.TB, s *s3Store) {
			bucket := s.mustMakeBucket(t)
			_, err := s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("k"), Body: strings.NewReader("v")})
			require.NoError(t, err)
			_, err = s.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &bucket})
			requireCode(t, err, "BucketNotEmpty")
		}},
		{"empty bucket is deleted", func(t testing.TB, s *s3Store) {
			bucket := s.mustMakeBucket(t)
			_, err := s.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &bucket})
			require.NoError(t, err)
			_, err = s.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &bucket})
			requireStatus(t, err, http.StatusNotFound)
		}},
		{"bucket tags are kept", func(t testing.TB, s *s3Store) {
			bucket := s.mustMakeBucket(t)
			tags := []types.Tag{{Key: aws.String("stage"), Value: aws.String("test")}}
			_, err := s.PutBucketTagging(t.Context(), &s3.PutBucketTaggingInput{Bucket: &bucket, Tagging: &types.Tagging{TagSet: tags}})
			require.NoError(t, err)
			out, err := s.GetBucketTagging(t.Context(), &s3.GetBucketTaggingInput{Bucket: &bucket})
			require.NoError(t, err)
			assert.Equal(t, tags, out.TagSet)
		}},
		{"lifecycle rule is kept", func(t testing.TB, s *s3Store) {
			bucket := s.mustMakeBucket(t)
			_, err := s.PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{
				Bucket: &bucket,
				LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
					ID: aws.String("old"), Status: types.ExpirationStatusEnabled,
					Filter:     &types.LifecycleRuleFilter{Prefix: aws.String("tmp/")},
					Expiration: &types.LifecycleExpiration{Days: aws.Int32(7)},
				}}},
			})
			require.NoError(t, err)
			out, err := s.GetBucketLifecycleConfiguration(t.Context(), &s3.GetBucketLifecycleConfigurationInput{Bucket: &bucket})
			require.NoError(t, err)
			require.Len(t, out.Rules, 1)
			assert.Equal(t, "old", aws.ToString(out.Rules[0].ID))
		}},

		// Objects.
		{"object is read back", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "plain", "héllo")
			assert.Equal(t, "héllo", s.mustGet(t, "plain"))
		}},
		{"empty object is read back", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "empty", "")
			assert.Empty(t, s.mustGet(t, "empty"))
		}},
		{"large binary object is read back", func(t testing.TB, s *s3Store) {
			data := mustRandom(t, 12<<20)
			s.mustPut(t, "large", string(data))
			assert.Equal(t, sha256.Sum256(data), sha256.Sum256([]byte(s.mustGet(t, "large"))))
		}},
		{"overwritten object has the new content", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "twice", "first and longer")
			s.mustPut(t, "twice", "second")
			assert.Equal(t, "second", s.mustGet(t, "twice"))
		}},
		{"ETag is the MD5 of the content", func(t testing.TB, s *s3Store) {
			sum := md5.Sum([]byte("tagged"))
			assert.Equal(t, `"`+hex.EncodeToString(sum[:])+`"`, s.mustPut(t, "etag", "tagged"))
		}},
		{"headers of an object are kept", func(t testing.TB, s *s3Store) {
			_, err := s.PutObject(t.Context(), &s3.PutObjectInput{
				Bucket: &s.bucket, Key: aws.String("headers"), Body: strings.NewReader("{}"), ContentType: aws.String("application/json"),
				CacheControl: aws.String("max-age=60"), ContentDisposition: aws.String(`attachment; filename="a.json"`), ContentLanguage: aws.String("ja"),
			})
			require.NoError(t, err)
			out, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String("headers")})
			require.NoError(t, err)
			assert.Equal(t, "application/json", aws.ToString(out.ContentType))
			assert.Equal(t, "max-age=60", aws.ToString(out.CacheControl))
			assert.Equal(t, `attachment; filename="a.json"`, aws.ToString(out.ContentDisposition))
			assert.Equal(t, "ja", aws.ToString(out.ContentLanguage))
		}},
		{"metadata of an object is kept", func(t testing.TB, s *s3Store) {
			meta := map[string]string{"owner": "esb", "count": "3"}
			_, err := s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.bucket, Key: aws.String("meta"), Body: strings.NewReader("x"), Metadata: meta})
			require.NoError(t, err)
			out, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String("meta")})
			require.NoError(t, err)
			assert.Equal(t, meta, out.Metadata)
		}},
		{"head tells size, ETag and time", func(t testing.TB, s *s3Store) {
			before := time.Now().Add(-time.Hour)
			etag := s.mustPut(t, "head", "12345")
			out, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String("head")})
			require.NoError(t, err)
			assert.EqualValues(t, 5, aws.ToInt64(out.ContentLength))
			assert.Equal(t, etag, aws.ToString(out.ETag))
			assert.True(t, aws.ToTime(out.LastModified).After(before), "%v", out.LastModified)
		}},
		{"keys with spaces, signs and letters of any script work", func(t testing.TB, s *s3Store) {
			for _, key := range []string{"a b+c", "日本語/キー.txt", "q?x=1&y=2", "per%20cent", "quo'te\"s", "deep/er/and/deep/er"} {
				s.mustPut(t, key, key)
				assert.Equal(t, key, s.mustGet(t, key))
			}
		}},
		{"missing object is NoSuchKey", func(t testing.TB, s *s3Store) {
			_, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("nothing")})
			requireCode(t, err, "NoSuchKey")
			_, err = s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String("nothing")})
			requireStatus(t, err, http.StatusNotFound)
		}},
		{"checksum of the SDK is kept", func(t testing.TB, s *s3Store) {
			sum := sha256.Sum256([]byte("summed"))
			_, err := s.PutObject(t.Context(), &s3.PutObjectInput{
				Bucket: &s.bucket, Key: aws.String("sum"), Body: strings.NewReader("summed"), ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
			})
			require.NoError(t, err)
			out, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String("sum"), ChecksumMode: types.ChecksumModeEnabled})
			require.NoError(t, err)
			assert.Equal(t, base64.StdEncoding.EncodeToString(sum[:]), aws.ToString(out.ChecksumSHA256))
		}},
		{"content that is not what its digest says is refused", func(t testing.TB, s *s3Store) {
			sum := md5.Sum([]byte("other"))
			_, err := s.PutObject(t.Context(), &s3.PutObjectInput{
				Bucket: &s.bucket, Key: aws.String("damaged"), Body: strings.NewReader("content"),
				ContentMD5: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
			})
			requireCode(t, err, "BadDigest")
			_, err = s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String("damaged")})
			requireStatus(t, err, http.StatusNotFound)
		}},
		{"many objects at once", func(t testing.TB, s *s3Store) {
			var wg sync.WaitGroup
			errs := make([]error, 40)
			for i := range errs {
				wg.Go(func() {
					_, errs[i] = s.PutObject(t.Context(), &s3.PutObjectInput{
						Bucket: &s.bucket, Key: aws.String(fmt.Sprintf("many/%02d", i)), Body: strings.NewReader(fmt.Sprint(i)),
					})
				})
			}
			wg.Wait()
			require.NoError(t, errors.Join(errs...))
			assert.Equal(t, "39", s.mustGet(t, "many/39"))
		}},

		// Ranges and conditions.
		{"range is a part", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "range", "0123456789")
			for ask, want := range map[string]string{"bytes=2-4": "234", "bytes=7-": "789", "bytes=-3": "789", "bytes=8-99": "89"} {
				out, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("range"), Range: aws.String(ask)})
				require.NoError(t, err, ask)
				data, err := io.ReadAll(out.Body)
				require.NoError(t, err)
				assert.Equal(t, want, string(data), ask)
				assert.Contains(t, aws.ToString(out.ContentRange), "/10", ask)
			}
		}},
		{"range past the end is refused", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "short", "0123")
			_, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("short"), Range: aws.String("bytes=10-20")})
			requireCode(t, err, "InvalidRange")
		}},
		{"read only if changed", func(t testing.TB, s *s3Store) {
			etag := s.mustPut(t, "unchanged", "v1")
			_, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("unchanged"), IfNoneMatch: &etag})
			requireStatus(t, err, http.StatusNotModified)
			s.mustPut(t, "unchanged", "v2")
			_, err = s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("unchanged"), IfNoneMatch: &etag})
			require.NoError(t, err)
		}},
		{"read only if still the same", func(t testing.TB, s *s3Store) {
			etag := s.mustPut(t, "same", "v1")
			_, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("same"), IfMatch: &etag})
			require.NoError(t, err)
			s.mustPut(t, "same", "v2")
			_, err = s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("same"), IfMatch: &etag})
			requireStatus(t, err, http.StatusPreconditionFailed)
		}},
		{"written only if absent", func(t testing.TB, s *s3Store) {
			put := func(body string) error {
				_, err := s.PutObject(t.Context(), &s3.PutObjectInput{
					Bucket: &s.bucket, Key: aws.String("once"), Body: strings.NewReader(body), IfNoneMatch: aws.String("*"),
				})
				return err
			}
			require.NoError(t, put("first"))
			requireStatus(t, put("second"), http.StatusPreconditionFailed)
			assert.Equal(t, "first", s.mustGet(t, "once"))
		}},

		// Deleting.
		{"deleted object is gone", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "gone", "x")
			_, err := s.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.bucket, Key: aws.String("gone")})
			require.NoError(t, err)
			_, err = s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("gone")})
			requireCode(t, err, "NoSuchKey")
		}},
		{"deleting what is not there is no error", func(t testing.TB, s *s3Store) {
			_, err := s.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.bucket, Key: aws.String("never was")})
			require.NoError(t, err)
		}},
		{"many objects are deleted in one call", func(t testing.TB, s *s3Store) {
			var ids []types.ObjectIdentifier
			for i := range 10 {
				key := fmt.Sprintf("sweep/%d", i)
				s.mustPut(t, key, "x")
				ids = append(ids, types.ObjectIdentifier{Key: &key})
			}
			out, err := s.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: &s.bucket, Delete: &types.Delete{Objects: ids}})
			require.NoError(t, err)
			assert.Empty(t, out.Errors)
			assert.Len(t, out.Deleted, 10)
			assert.Empty(t, s.mustList(t, &s3.ListObjectsV2Input{Prefix: aws.String("sweep/")}).Contents)
		}},

		// Listing.
		{"list by prefix is sorted and has sizes", func(t testing.TB, s *s3Store) {
			for _, key := range []string{"list/c", "list/a", "list/b/1", "other"} {
				s.mustPut(t, key, "xyz")
			}
			out := s.mustList(t, &s3.ListObjectsV2Input{Prefix: aws.String("list/")})
			assert.Equal(t, []string{"list/a", "list/b/1", "list/c"}, keys(out.Contents))
			assert.EqualValues(t, 3, aws.ToInt64(out.Contents[0].Size))
			assert.NotEmpty(t, aws.ToString(out.Contents[0].ETag))
		}},
		{"list by delimiter shows folders", func(t testing.TB, s *s3Store) {
			for _, key := range []string{"tree/a/1", "tree/a/2", "tree/b/1", "tree/leaf"} {
				s.mustPut(t, key, "x")
			}
			out := s.mustList(t, &s3.ListObjectsV2Input{Prefix: aws.String("tree/"), Delimiter: aws.String("/")})
			assert.Equal(t, []string{"tree/leaf"}, keys(out.Contents))
			var folders []string
			for _, p := range out.CommonPrefixes {
				folders = append(folders, *p.Prefix)
			}
			assert.Equal(t, []string{"tree/a/", "tree/b/"}, folders)
		}},
		{"list in pages is complete", func(t testing.TB, s *s3Store) {
			var want []string
			for i := range 7 {
				key := fmt.Sprintf("page/%d", i)
				s.mustPut(t, key, "x")
				want = append(want, key)
			}
			var got []string
			pages := s3.NewListObjectsV2Paginator(s, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String("page/"), MaxKeys: aws.Int32(3)})
			count := 0
			for ; pages.HasMorePages(); count++ {
				page, err := pages.NextPage(t.Context())
				require.NoError(t, err)
				got = append(got, keys(page.Contents)...)
			}
			assert.Equal(t, want, got)
			assert.Equal(t, 3, count)
		}},
		{"list begins after a key", func(t testing.TB, s *s3Store) {
			for _, key := range []string{"after/1", "after/2", "after/3"} {
				s.mustPut(t, key, "x")
			}
			out := s.mustList(t, &s3.ListObjectsV2Input{Prefix: aws.String("after/"), StartAfter: aws.String("after/1")})
			assert.Equal(t, []string{"after/2", "after/3"}, keys(out.Contents))
		}},
		{"old list with a marker works", func(t testing.TB, s *s3Store) {
			for _, key := range []string{"mark/1", "mark/2", "mark/3"} {
				s.mustPut(t, key, "x")
			}
			out, err := s.ListObjects(t.Context(), &s3.ListObjectsInput{Bucket: &s.bucket, Prefix: aws.String("mark/"), Marker: aws.String("mark/2")})
			require.NoError(t, err)
			assert.Equal(t, []string{"mark/3"}, keys(out.Contents))
		}},

		// Copies.
		{"copy has content, type and metadata", func(t testing.TB, s *s3Store) {
			s.mustPutTyped(t, "copy/from", "copied")
			_, err := s.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &s.bucket, Key: aws.String("copy/to"), CopySource: aws.String(s.bucket + "/copy/from")})
			require.NoError(t, err)
			out, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("copy/to")})
			require.NoError(t, err)
			data, err := io.ReadAll(out.Body)
			require.NoError(t, err)
			assert.Equal(t, "copied", string(data))
			assert.Equal(t, "text/csv", aws.ToString(out.ContentType))
			assert.Equal(t, map[string]string{"kind": "original"}, out.Metadata)
		}},
		{"copy with replaced metadata", func(t testing.TB, s *s3Store) {
			s.mustPutTyped(t, "replace/from", "copied")
			_, err := s.CopyObject(t.Context(), &s3.CopyObjectInput{
				Bucket: &s.bucket, Key: aws.String("replace/to"), CopySource: aws.String(s.bucket + "/replace/from"),
				MetadataDirective: types.MetadataDirectiveReplace, Metadata: map[string]string{"kind": "copy"}, ContentType: aws.String("text/plain"),
			})
			require.NoError(t, err)
			out, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String("replace/to")})
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"kind": "copy"}, out.Metadata)
			assert.Equal(t, "text/plain", aws.ToString(out.ContentType))
		}},
		{"copy between buckets", func(t testing.TB, s *s3Store) {
			other := s.mustMakeBucket(t)
			s.mustPut(t, "travel", "far")
			_, err := s.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &other, Key: aws.String("arrived"), CopySource: aws.String(s.bucket + "/travel")})
			require.NoError(t, err)
			_, err = s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &other, Key: aws.String("arrived")})
			require.NoError(t, err)
		}},
		{"copy of a missing object is refused", func(t testing.TB, s *s3Store) {
			_, err := s.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &s.bucket, Key: aws.String("to"), CopySource: aws.String(s.bucket + "/from-nowhere")})
			requireCode(t, err, "NoSuchKey")
		}},

		// Uploads in parts.
		{"copy on a condition that does not hold overwrites nothing", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "condition/from", "new")
			etag := s.mustPut(t, "condition/to", "old")
			other := s.mustPut(t, "condition/other", "other")
			for name, in := range map[string]*s3.CopyObjectInput{
				"If-None-Match": {IfNoneMatch: aws.String("*")}, "If-Match": {IfMatch: &other},
			} {
				in.Bucket, in.Key, in.CopySource = &s.bucket, aws.String("condition/to"), aws.String(s.bucket+"/condition/from")
				_, err := s.CopyObject(t.Context(), in)
				require.Error(t, err, name)
				assert.Equal(t, "old", s.mustGet(t, "condition/to"), name)
			}
			// One that holds is met, or refused as not implemented; it is never ignored.
			_, err := s.CopyObject(t.Context(), &s3.CopyObjectInput{
				Bucket: &s.bucket, Key: aws.String("condition/to"), CopySource: aws.String(s.bucket + "/condition/from"), IfMatch: &etag,
			})
			if err != nil {
				requireStatus(t, err, http.StatusNotImplemented)
			}
		}},
		{"upload in parts becomes one object", func(t testing.TB, s *s3Store) {
			upload := s.mustBegin(t, "parts")
			first, last := mustRandom(t, partSize), []byte("the end")
			parts := []types.CompletedPart{s.mustUpload(t, "parts", upload, 1, first), s.mustUpload(t, "parts", upload, 2, last)}
			out, err := s.complete(t.Context(), "parts", upload, parts)
			require.NoError(t, err)
			assert.True(t, strings.HasSuffix(strings.Trim(aws.ToString(out.ETag), `"`), "-2"), "%s", aws.ToString(out.ETag))
			assert.True(t, bytes.Equal(append(first, last...), []byte(s.mustGet(t, "parts"))), "the object must be its parts")
		}},
		{"parts of an upload are listed", func(t testing.TB, s *s3Store) {
			upload := s.mustBegin(t, "listed")
			s.mustUpload(t, "listed", upload, 1, mustRandom(t, partSize))
			out, err := s.ListParts(t.Context(), &s3.ListPartsInput{Bucket: &s.bucket, Key: aws.String("listed"), UploadId: &upload})
			require.NoError(t, err)
			require.Len(t, out.Parts, 1)
			assert.EqualValues(t, partSize, aws.ToInt64(out.Parts[0].Size))
			uploads, err := s.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: aws.String("listed")})
			require.NoError(t, err)
			require.Len(t, uploads.Uploads, 1)
			assert.Equal(t, upload, aws.ToString(uploads.Uploads[0].UploadId))
		}},
		{"upload that is given up leaves nothing", func(t testing.TB, s *s3Store) {
			upload := s.mustBegin(t, "aborted")
			s.mustUpload(t, "aborted", upload, 1, []byte("some"))
			_, err := s.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: aws.String("aborted"), UploadId: &upload})
			require.NoError(t, err)
			_, err = s.ListParts(t.Context(), &s3.ListPartsInput{Bucket: &s.bucket, Key: aws.String("aborted"), UploadId: &upload})
			requireCode(t, err, "NoSuchUpload")
		}},
		{"upload with a small part in front is refused", func(t testing.TB, s *s3Store) {
			upload := s.mustBegin(t, "small")
			parts := []types.CompletedPart{s.mustUpload(t, "small", upload, 1, []byte("small")), s.mustUpload(t, "small", upload, 2, []byte("end"))}
			_, err := s.complete(t.Context(), "small", upload, parts)
			requireCode(t, err, "EntityTooSmall")
		}},
		{"part can be a copy", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "part/from", "copied part")
			upload := s.mustBegin(t, "part/to")
			out, err := s.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{
				Bucket: &s.bucket, Key: aws.String("part/to"), UploadId: &upload, PartNumber: aws.Int32(1), CopySource: aws.String(s.bucket + "/part/from"),
			})
			require.NoError(t, err)
			_, err = s.complete(t.Context(), "part/to", upload, []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: out.CopyPartResult.ETag}})
			require.NoError(t, err)
			assert.Equal(t, "copied part", s.mustGet(t, "part/to"))
		}},

		// Tags and versions.
		{"object tags are kept, replaced and deleted", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "tags", "x")
			at := &s3.GetObjectTaggingInput{Bucket: &s.bucket, Key: aws.String("tags")}
			for _, value := range []string{"one", "two"} {
				tags := []types.Tag{{Key: aws.String("n"), Value: aws.String(value)}}
				_, err := s.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: at.Bucket, Key: at.Key, Tagging: &types.Tagging{TagSet: tags}})
				require.NoError(t, err)
				out, err := s.GetObjectTagging(t.Context(), at)
				require.NoError(t, err)
				assert.Equal(t, tags, out.TagSet)
			}
			assert.Equal(t, "x", s.mustGet(t, "tags"), "tagging must not touch the content")
			_, err := s.DeleteObjectTagging(t.Context(), &s3.DeleteObjectTaggingInput{Bucket: at.Bucket, Key: at.Key})
			require.NoError(t, err)
			out, err := s.GetObjectTagging(t.Context(), at)
			require.NoError(t, err)
			assert.Empty(t, out.TagSet)
		}},
		{"old versions can be read and a delete undone", func(t testing.TB, s *s3Store) {
			bucket, key := s.mustMakeBucket(t), aws.String("versioned")
			_, err := s.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
				Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
			})
			require.NoError(t, err)
			first, err := s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: key, Body: strings.NewReader("v1")})
			require.NoError(t, err)
			_, err = s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: key, Body: strings.NewReader("v2")})
			require.NoError(t, err)
			old, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: key, VersionId: first.VersionId})
			require.NoError(t, err)
			data, err := io.ReadAll(old.Body)
			require.NoError(t, err)
			assert.Equal(t, "v1", string(data))
			marker, err := s.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: key})
			require.NoError(t, err)
			assert.True(t, aws.ToBool(marker.DeleteMarker))
			_, err = s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: key})
			requireStatus(t, err, http.StatusNotFound)
			_, err = s.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: key, VersionId: marker.VersionId})
			require.NoError(t, err)
			_, err = s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: key})
			require.NoError(t, err)
		}},

		// Who may.
		{"presigned link reads", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "shared", "by link")
			link, err := s3.NewPresignClient(s.Client).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("shared")})
			require.NoError(t, err)
			status, body := mustFetch(t, http.MethodGet, link.URL, "")
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, "by link", body)
			status, _ = mustFetch(t, http.MethodGet, strings.Replace(link.URL, "/shared?", "/plain?", 1), "")
			assert.Equal(t, http.StatusForbidden, status, "a link is for one key")
		}},
		{"presigned link writes", func(t testing.TB, s *s3Store) {
			link, err := s3.NewPresignClient(s.Client).PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.bucket, Key: aws.String("dropped")})
			require.NoError(t, err)
			status, body := mustFetch(t, http.MethodPut, link.URL, "by link")
			require.Equal(t, http.StatusOK, status, body)
			assert.Equal(t, "by link", s.mustGet(t, "dropped"))
		}},
		{"body in signed chunks is taken", func(t testing.TB, s *s3Store) {
			data := bytes.Repeat([]byte("0123456789"), 20_001)
			sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
			checksum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
			for _, trailer := range []string{"", "x-amz-checksum-crc32c"} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.target.endpoint+"/"+s.bucket+"/chunks"+trailer, nil)
				require.NoError(t, err)
				sigv4test.SignChunks(r, s.target.credentials(), s.target.region, data, 65536, trailer, checksum)
				res, err := http.DefaultClient.Do(r)
				require.NoError(t, err)
				answer, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				require.NoError(t, res.Body.Close())
				require.Equal(t, http.StatusOK, res.StatusCode, "%s", answer)
				assert.Equal(t, string(data), s.mustGet(t, "chunks"+trailer))
			}
		}},
		{"body in chunks that somebody has changed is refused", func(t testing.TB, s *s3Store) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.target.endpoint+"/"+s.bucket+"/changed", nil)
			require.NoError(t, err)
			sigv4test.SignChunks(r, s.target.credentials(), s.target.region, bytes.Repeat([]byte("x"), 100_000), 65536, "", "")
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			body[90_000] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(body))
			res, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			assert.Equal(t, http.StatusForbidden, res.StatusCode)
			_, err = s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String("changed")})
			require.Error(t, err, "nothing of it may stay")
		}},
		{"body that breaks off leaves nothing", func(t testing.TB, s *s3Store) {
			const whole, sent = 100_000, 99_999
			key := "broken-off"
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.target.endpoint+"/"+s.bucket+"/"+key, nil)
			require.NoError(t, err)
			r.ContentLength = whole
			sigv4.Sign(r, s.target.credentials(), s.target.region, "s3", sigv4.UnsignedPayload, time.Now())
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", sent)), iotest.ErrReader(errors.New("the client dies"))))
			res, err := http.DefaultClient.Do(r)
			if err == nil {
				_ = res.Body.Close()
				assert.GreaterOrEqual(t, res.StatusCode, 400)
			}
			// Nobody says when the store has noticed that the client is gone; a piece would show soon.
			require.Never(t, func() bool {
				_, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: &key})
				return err == nil
			}, 2*time.Second, 100*time.Millisecond, "a piece of an object must not look like one")
		}},
		{"wrong secret is refused", func(t testing.TB, s *s3Store) {
			wrong := s.target
			wrong.secretKey, wrong.sessionToken = wrong.secretKey+"x", ""
			_, err := newS3Client(wrong).ListBuckets(t.Context(), &s3.ListBucketsInput{})
			requireCode(t, err, "SignatureDoesNotMatch")
		}},
		{"unknown key is refused", func(t testing.TB, s *s3Store) {
			wrong := s.target
			wrong.accessKey = "nobody-has-this"
			_, err := newS3Client(wrong).ListBuckets(t.Context(), &s3.ListBucketsInput{})
			requireCode(t, err, "InvalidAccessKeyId")
		}},
		{"stranger is refused", func(t testing.TB, s *s3Store) {
			s.mustPut(t, "private", "x")
			status, body := mustFetch(t, http.MethodGet, s.target.endpoint+"/"+s.bucket+"/private", "")
			assert.Equal(t, http.StatusForbidden, status, body)
		}},
	}
}

// mustMakeBucket makes a bucket that is removed, with all it holds, when the checks end.
func (s *s3Store) mustMakeBucket(t testing.TB) string {
	t.Helper()
	bucket := "esb-contract-" + hex.EncodeToString(mustRandom(t, 6))
	_, err := s.owner.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket})
	require.NoError(t, err)
	t.Cleanup(func() { s.remove(context.WithoutCancel(t.Context()), bucket) })
	return bucket
}

// remove deletes a bucket with all versions and unfinished uploads; what fails stays, a check may have deleted it.
func (s *s3Store) remove(ctx context.Context, bucket string) {
	if uploads, err := s.owner.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &bucket}); err == nil {
		for _, u := range uploads.Uploads {
			_, _ = s.owner.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: u.Key, UploadId: u.UploadId})
		}
	}
	if versions, err := s.owner.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &bucket}); err == nil {
		for _, v := range versions.Versions {
			_, _ = s.owner.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: v.Key, VersionId: v.VersionId})
		}
		for _, m := range versions.DeleteMarkers {
			_, _ = s.owner.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: m.Key, VersionId: m.VersionId})
		}
	}
	if list, err := s.owner.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket}); err == nil {
		for _, o := range list.Contents {
			_, _ = s.owner.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: o.Key})
		}
	}
	_, _ = s.owner.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket})
}

// mustPut writes an object into the shared bucket and returns its ETag.
func (s *s3Store) mustPut(t testing.TB, key, body string) string {
	t.Helper()
	out, err := s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.bucket, Key: &key, Body: strings.NewReader(body)})
	require.NoError(t, err, "put %s", key)
	return aws.ToString(out.ETag)
}

func (s *s3Store) mustPutTyped(t testing.TB, key, body string) {
	t.Helper()
	_, err := s.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &s.bucket, Key: &key, Body: strings.NewReader(body), ContentType: aws.String("text/csv"), Metadata: map[string]string{"kind": "original"},
	})
	require.NoError(t, err)
}

func (s *s3Store) mustGet(t testing.TB, key string) string {
	t.Helper()
	out, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: &key})
	require.NoError(t, err, "get %s", key)
	defer func() { _ = out.Body.Close() }()
	data, err := io.ReadAll(out.Body)
	require.NoError(t, err, "read %s", key)
	return string(data)
}

func (s *s3Store) mustList(t testing.TB, in *s3.ListObjectsV2Input) *s3.ListObjectsV2Output {
	t.Helper()
	in.Bucket = &s.bucket
	out, err := s.ListObjectsV2(t.Context(), in)
	require.NoError(t, err)
	return out
}

func (s *s3Store) mustBegin(t testing.TB, key string) string {
	t.Helper()
	out, err := s.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.bucket, Key: &key})
	require.NoError(t, err)
	return aws.ToString(out.UploadId)
}

func (s *s3Store) mustUpload(t testing.TB, key, upload string, number int32, data []byte) types.CompletedPart {
	t.Helper()
	out, err := s.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: &s.bucket, Key: &key, UploadId: &upload, PartNumber: &number, Body: bytes.NewReader(data),
	})
	require.NoError(t, err)
	// The SDK's default checksum of a part belongs into the completion.
	return types.CompletedPart{PartNumber: &number, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32}
}

func (s *s3Store) complete(ctx context.Context, key, upload string, parts []types.CompletedPart) (*s3.CompleteMultipartUploadOutput, error) {
	return s.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &s.bucket, Key: &key, UploadId: &upload, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
}

func keys(objects []types.Object) []string {
	var all []string
	for _, o := range objects {
		all = append(all, aws.ToString(o.Key))
	}
	return all
}

// requireStatus requires an answer with an HTTP status; a HEAD's answer has no code in it.
func requireStatus(t testing.TB, err error, status int) {
	t.Helper()
	require.Error(t, err)
	var response *awshttp.ResponseError
	require.ErrorAs(t, err, &response)
	assert.Equal(t, status, response.HTTPStatusCode(), "%v", err)
}

func mustFetch(t testing.TB, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(data)
}

func mustRandom(t testing.TB, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	_, err := rand.Read(data)
	require.NoError(t, err)
	return data
}
