package stores

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestS3StandIn checks what the front adds to the stand-in, as the operator and as a function.
func TestS3StandIn(t *testing.T) {
	if setting("S3_ENDPOINT", "") != "" {
		t.Skip("the store is set, and not the stand-in")
	}
	at, _ := s3Target(t)
	for _, caller := range at.callers() {
		t.Run(caller.who, func(t *testing.T) {
			store := &s3Store{Client: newS3Client(caller.target), owner: newS3Client(at), target: caller.target}
			store.bucket = store.mustMakeBucket(t)
			t.Run("copy on a condition", store.copiesOnCondition)
			t.Run("of many copies on one condition one is made", store.copiesOnce)
			t.Run("attributes name the parts", store.attributes)
			t.Run("what is not done is refused", store.refuses)
			t.Run("continuation tokens are the store's own", store.continues)
			t.Run("links for the public host", store.links)
			if !caller.function {
				t.Run("lifecycle rules are carried out", store.expires)
				t.Run("lifecycle rules that are wrong", store.wrongRules)
			}
		})
	}
}

// S3 API reference, CopyObject, If-Match and If-None-Match; recorded against AWS: 412 PreconditionFailed, 404 NoSuchKey.
func (s *s3Store) copiesOnCondition(t *testing.T) {
	put := func(key, body string) string {
		out, err := s.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &s.bucket, Key: &key, Body: strings.NewReader(body), ContentType: aws.String("text/csv"), CacheControl: aws.String("no-store"),
			Metadata: map[string]string{"kind": key}, Tagging: aws.String("a=b&c=d%20e"),
		})
		require.NoError(t, err)
		return aws.ToString(out.ETag)
	}
	put("on/from", "new")
	old := put("on/to", "old")
	cp := func(in s3.CopyObjectInput) error {
		in.Bucket, in.CopySource = &s.bucket, aws.String(s.bucket+"/on/from")
		_, err := s.CopyObject(t.Context(), &in)
		return err
	}
	to, other := aws.String("on/to"), aws.String(`"00000000000000000000000000000000"`)
	requireCode(t, cp(s3.CopyObjectInput{Key: to, IfNoneMatch: aws.String("*")}), "PreconditionFailed")
	requireCode(t, cp(s3.CopyObjectInput{Key: to, IfMatch: other}), "PreconditionFailed")
	requireCode(t, cp(s3.CopyObjectInput{Key: aws.String("on/nowhere"), IfMatch: other}), "NoSuchKey")
	requireCode(t, cp(s3.CopyObjectInput{Key: aws.String("on/fresh"), IfNoneMatch: aws.String("*"), CopySourceIfMatch: other}), "PreconditionFailed")
	assert.Equal(t, "old", s.mustGet(t, "on/to"))
	require.NoError(t, cp(s3.CopyObjectInput{Key: to, IfMatch: &old}))
	require.NoError(t, cp(s3.CopyObjectInput{Key: aws.String("on/fresh"), IfNoneMatch: aws.String("*")}))
	for _, key := range []string{"on/to", "on/fresh"} {
		out, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: &key})
		require.NoError(t, err)
		data, err := io.ReadAll(out.Body)
		require.NoError(t, err)
		assert.Equal(t, "new", string(data))
		assert.Equal(t, "text/csv", aws.ToString(out.ContentType))
		assert.Equal(t, "no-store", aws.ToString(out.CacheControl))
		assert.Equal(t, map[string]string{"kind": "on/from"}, out.Metadata)
		tags, err := s.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: &s.bucket, Key: &key})
		require.NoError(t, err)
		assert.ElementsMatch(t, []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}, {Key: aws.String("c"), Value: aws.String("d e")}}, tags.TagSet)
	}
	// Onto itself, with other metadata.
	etag := put("on/self", "self")
	self := s3.CopyObjectInput{
		Bucket: &s.bucket, Key: aws.String("on/self"), CopySource: aws.String(s.bucket + "/on/self"), IfMatch: &etag,
		MetadataDirective: types.MetadataDirectiveReplace, Metadata: map[string]string{"now": "this"}, ContentType: aws.String("text/plain"),
	}
	_, err := s.CopyObject(t.Context(), &self)
	require.NoError(t, err)
	out, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: self.Key})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"now": "this"}, out.Metadata)
	assert.Equal(t, "text/plain", aws.ToString(out.ContentType))
}

func (s *s3Store) copiesOnce(t *testing.T) {
	const writers = 16
	var made atomic.Int32
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		from := fmt.Sprintf("once/from-%d", i)
		s.mustPut(t, from, strings.Repeat(fmt.Sprint(i%10), 100_000))
		wg.Go(func() {
			_, err := s.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &s.bucket, Key: aws.String("once/to"), CopySource: aws.String(s.bucket + "/" + from), IfNoneMatch: aws.String("*")})
			if err == nil {
				made.Add(1)
				return
			}
			errs[i] = err
		})
	}
	wg.Wait()
	assert.EqualValues(t, 1, made.Load(), "%v", errors.Join(errs...))
	for _, err := range errs {
		if err != nil {
			requireCode(t, err, "PreconditionFailed", "ConditionalRequestConflict")
		}
	}
}

// S3 API reference, GetObjectAttributes.
func (s *s3Store) attributes(t *testing.T) {
	upload := s.mustBegin(t, "attributes")
	data := bytes.Repeat([]byte("x"), partSize)
	parts := []types.CompletedPart{s.mustUpload(t, "attributes", upload, 1, data), s.mustUpload(t, "attributes", upload, 2, []byte("end"))}
	_, err := s.complete(t.Context(), "attributes", upload, parts)
	require.NoError(t, err)
	out, err := s.GetObjectAttributes(t.Context(), &s3.GetObjectAttributesInput{
		Bucket: &s.bucket, Key: aws.String("attributes"), ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesEtag, types.ObjectAttributesObjectSize, types.ObjectAttributesObjectParts},
	})
	require.NoError(t, err)
	assert.EqualValues(t, partSize+3, aws.ToInt64(out.ObjectSize))
	require.NotNil(t, out.ObjectParts)
	assert.EqualValues(t, 2, aws.ToInt32(out.ObjectParts.TotalPartsCount))
	assert.Empty(t, out.ObjectParts.Parts)
	s.mustPut(t, "attributes-plain", "x")
	plain, err := s.GetObjectAttributes(t.Context(), &s3.GetObjectAttributesInput{
		Bucket: &s.bucket, Key: aws.String("attributes-plain"), ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesObjectSize, types.ObjectAttributesObjectParts},
	})
	require.NoError(t, err)
	assert.Nil(t, plain.ObjectParts, "it was not uploaded in parts")
}

// Recorded against AWS (github.com/versity/versitygw issue 993, github.com/minio/minio issue 5931): made-up tokens are refused.
func (s *s3Store) continues(t *testing.T) {
	var want []string
	for _, key := range []string{"token/a b", "token/a+b", "token/d/1", "token/d/2", "token/é&<1>"} {
		s.mustPut(t, key, "x")
		want = append(want, key)
	}
	for _, delimiter := range []string{"", "/"} {
		in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String("token/"), MaxKeys: aws.Int32(1)}
		all := want
		if delimiter != "" {
			in.Delimiter, all = &delimiter, []string{want[0], want[1], "token/d/", want[4]}
		}
		var got []string
		for pages := s3.NewListObjectsV2Paginator(s, in); pages.HasMorePages(); {
			page, err := pages.NextPage(t.Context())
			require.NoError(t, err)
			got = append(got, keys(page.Contents)...)
			for _, p := range page.CommonPrefixes {
				got = append(got, aws.ToString(p.Prefix))
			}
		}
		assert.Equal(t, all, got)
	}
	for _, token := range []string{"", "token/a b", "made-up"} {
		_, err := s.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &s.bucket, ContinuationToken: &token})
		requireCode(t, err, "InvalidArgument")
	}
}

// What a store cannot do it must not say that it has done.
func (s *s3Store) refuses(t *testing.T) {
	put := func(in s3.PutObjectInput) error {
		in.Bucket, in.Key, in.Body = &s.bucket, aws.String("refused"), strings.NewReader("x")
		_, err := s.PutObject(t.Context(), &in)
		return err
	}
	requireCode(t, put(s3.PutObjectInput{ACL: types.ObjectCannedACLPublicRead}), "AccessControlListNotSupported", "AccessDenied")
	requireCode(t, put(s3.PutObjectInput{GrantRead: aws.String(`uri="http://acs.amazonaws.com/groups/global/AllUsers"`)}), "AccessControlListNotSupported", "AccessDenied")
	requireCode(t, put(s3.PutObjectInput{StorageClass: types.StorageClassGlacier}), "InvalidStorageClass")
	requireCode(t, put(s3.PutObjectInput{ServerSideEncryption: types.ServerSideEncryptionAwsKms}), "NotImplemented")
	requireCode(t, put(s3.PutObjectInput{Tagging: aws.String("aws%3Ax=1")}), "InvalidTag")
	requireCode(t, put(s3.PutObjectInput{Tagging: aws.String("a=1&b=1&c=1&d=1&e=1&f=1&g=1&h=1&i=1&j=1&k=1")}), "BadRequest")
	requireCode(t, put(s3.PutObjectInput{Tagging: aws.String("a=1&a=2")}), "InvalidArgument")
	requireCode(t, put(s3.PutObjectInput{Tagging: aws.String("a=" + strings.Repeat("x", 257))}), "InvalidTag")
	require.NoError(t, put(s3.PutObjectInput{ACL: types.ObjectCannedACLPrivate, StorageClass: types.StorageClassStandard}))
	var many []types.ObjectIdentifier
	for i := range 1001 {
		many = append(many, types.ObjectIdentifier{Key: aws.String(fmt.Sprint("many/", i))})
	}
	_, err := s.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: &s.bucket, Delete: &types.Delete{Objects: many}})
	requireCode(t, err, "MalformedXML")
	quiet, err := s.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: &s.bucket, Delete: &types.Delete{Objects: many[:2], Quiet: aws.Bool(true)}})
	require.NoError(t, err)
	assert.Empty(t, quiet.Deleted, "it was asked to be quiet")
	_, err = s.GetObjectTorrent(t.Context(), &s3.GetObjectTorrentInput{Bucket: &s.bucket, Key: aws.String("refused")})
	requireCode(t, err, "NotImplemented", "AccessDenied")
	_, err = s.PutBucketWebsite(t.Context(), &s3.PutBucketWebsiteInput{Bucket: &s.bucket, WebsiteConfiguration: &types.WebsiteConfiguration{IndexDocument: &types.IndexDocument{Suffix: aws.String("index.html")}}})
	requireCode(t, err, "NotImplemented", "AccessDenied")
	_, err = s.SelectObjectContent(t.Context(), &s3.SelectObjectContentInput{
		Bucket: &s.bucket, Key: aws.String("refused"), ExpressionType: types.ExpressionTypeSql, Expression: aws.String("SELECT * FROM S3Object"),
		InputSerialization: &types.InputSerialization{CSV: &types.CSVInput{}}, OutputSerialization: &types.OutputSerialization{CSV: &types.CSVOutput{}},
	})
	requireCode(t, err, "NotImplemented")
}

// Links that are signed for the host of S3_PUBLIC_ENDPOINT, which is what a client outside calls.
func (s *s3Store) links(t *testing.T) {
	s.mustPut(t, "public/a b", "by link")
	addr := strings.TrimPrefix(s.target.endpoint, "http://")
	outside := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr) // what the public name leads to
	}}}
	for _, byPath := range []bool{true, false} {
		client := s3.New(s3.Options{
			BaseEndpoint: aws.String("http://files.example.com:9000"), Region: s.target.region, UsePathStyle: byPath,
			Credentials: credentials.NewStaticCredentialsProvider(s.target.accessKey, s.target.secretKey, s.target.sessionToken),
		})
		link, err := s3.NewPresignClient(client).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("public/a b")})
		require.NoError(t, err)
		assert.Equal(t, byPath, strings.HasPrefix(link.URL, "http://files.example.com:9000/"+s.bucket+"/"), link.URL)
		res, err := outside.Get(link.URL)
		require.NoError(t, err)
		data, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		assert.Equal(t, http.StatusOK, res.StatusCode, "%s", data)
		assert.Equal(t, "by link", string(data))
		put, err := s3.NewPresignClient(client).PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.bucket, Key: aws.String("public/put")})
		require.NoError(t, err)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, put.URL, strings.NewReader("put"))
		require.NoError(t, err)
		res, err = outside.Do(r)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		assert.Equal(t, http.StatusOK, res.StatusCode)
	}
	assert.Equal(t, "put", s.mustGet(t, "public/put"))
}

func rule(id string, filter types.LifecycleRuleFilter) types.LifecycleRule {
	return types.LifecycleRule{ID: &id, Status: types.ExpirationStatusEnabled, Filter: &filter}
}

func (s *s3Store) expires(t *testing.T) {
	bucket := s.mustMakeBucket(t)
	put := func(key, tags string) {
		_, err := s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(key), Tagging: aws.String(tags)})
		require.NoError(t, err)
	}
	past := aws.Time(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
	for _, key := range []string{"tmp/1", "tmp/2", "keep/1", "off/1", "young/1"} {
		put(key, "")
	}
	put("tagged/goes", "temp=yes&a=b")
	put("tagged/stays", "temp=no&a=b")
	expiring := rule("tmp", types.LifecycleRuleFilter{Prefix: aws.String("tmp/")})
	expiring.Expiration = &types.LifecycleExpiration{Date: past}
	tagged := rule("tagged", types.LifecycleRuleFilter{And: &types.LifecycleRuleAndOperator{
		Prefix: aws.String("tagged/"), Tags: []types.Tag{{Key: aws.String("temp"), Value: aws.String("yes")}},
	}})
	tagged.Expiration = &types.LifecycleExpiration{Date: past}
	off := rule("off", types.LifecycleRuleFilter{Prefix: aws.String("off/")})
	off.Status, off.Expiration = types.ExpirationStatusDisabled, &types.LifecycleExpiration{Date: past}
	young := rule("young", types.LifecycleRuleFilter{Prefix: aws.String("young/")})
	young.Expiration = &types.LifecycleExpiration{Days: aws.Int32(1)}
	young.AbortIncompleteMultipartUpload = &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: aws.Int32(1)}
	_, err := s.PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{
		Bucket: &bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{expiring, tagged, off, young}},
	})
	require.NoError(t, err)
	var left []string
	require.Eventually(t, func() bool {
		out, err := s.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket})
		if err != nil {
			return false
		}
		left = keys(out.Contents)
		return len(left) == 4
	}, time.Minute, 100*time.Millisecond, "%v", left)
	assert.Equal(t, []string{"keep/1", "off/1", "tagged/stays", "young/1"}, left)
	got, err := s.GetBucketLifecycleConfiguration(t.Context(), &s3.GetBucketLifecycleConfigurationInput{Bucket: &bucket})
	require.NoError(t, err)
	require.Len(t, got.Rules, 4)
	assert.Equal(t, past, got.Rules[0].Expiration.Date)
	assert.Equal(t, tagged.Filter, got.Rules[1].Filter)
	_, err = s.DeleteBucketLifecycle(t.Context(), &s3.DeleteBucketLifecycleInput{Bucket: &bucket})
	require.NoError(t, err)
	_, err = s.GetBucketLifecycleConfiguration(t.Context(), &s3.GetBucketLifecycleConfigurationInput{Bucket: &bucket})
	requireCode(t, err, "NoSuchLifecycleConfiguration")
	// Rules go with their bucket.
	again := s.mustMakeBucket(t)
	_, err = s.PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{
		Bucket: &again, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{expiring}},
	})
	require.NoError(t, err)
	_, err = s.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &again})
	require.NoError(t, err)
	_, err = s.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &again})
	require.NoError(t, err)
	_, err = s.GetBucketLifecycleConfiguration(t.Context(), &s3.GetBucketLifecycleConfigurationInput{Bucket: &again})
	requireCode(t, err, "NoSuchLifecycleConfiguration")
}

func (s *s3Store) wrongRules(t *testing.T) {
	put := func(bucket string, rules ...types.LifecycleRule) error {
		_, err := s.PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{
			Bucket: &bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: rules},
		})
		return err
	}
	none := rule("none", types.LifecycleRuleFilter{Prefix: aws.String("")})
	requireCode(t, put(s.bucket, none), "InvalidRequest")
	days := none
	days.Expiration = &types.LifecycleExpiration{Days: aws.Int32(0)}
	requireCode(t, put(s.bucket, days), "InvalidArgument")
	move := none
	move.Transitions = []types.Transition{{Days: aws.Int32(1), StorageClass: types.TransitionStorageClassGlacier}}
	requireCode(t, put(s.bucket, move), "NotImplemented")
	right := none
	right.Expiration = &types.LifecycleExpiration{Days: aws.Int32(1)}
	requireCode(t, put(s.bucket, right, right), "InvalidArgument")
	requireCode(t, put("no-such-bucket-here", right), "NoSuchBucket")
	require.NoError(t, put(s.bucket, right))
}
