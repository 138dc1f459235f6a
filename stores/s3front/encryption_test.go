package s3front_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/stores/s3front"
)

// S3 API reference: x-amz-server-side-encryption is in the answers of the operations on an object's content.
func TestS3_Encryption_IsToldWhereTheDiskDoesIt(t *testing.T) {
	for _, disk := range []bool{false, true} {
		want := types.ServerSideEncryption("")
		if disk {
			want = types.ServerSideEncryptionAes256
		}
		var logged bytes.Buffer
		endpoint, backend, keys := mustOpenWith(t, s3front.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil)), Ignorant: true, EncryptedDisk: disk})
		for _, who := range []sigv4.Credentials{keys.Of("f"), storeKey} {
			c, bucket, key := client(endpoint, who), aws.String("bkt"), aws.String("k")
			backend.answer = ""
			put, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("x"), ServerSideEncryption: types.ServerSideEncryptionAes256})
			require.NoError(t, err)
			plain, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("x")})
			require.NoError(t, err)
			get, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: bucket, Key: key})
			require.NoError(t, err)
			head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: key})
			require.NoError(t, err)
			part, err := c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: aws.String("u"), PartNumber: aws.Int32(1), Body: strings.NewReader("x")})
			require.NoError(t, err)
			for i, got := range []types.ServerSideEncryption{put.ServerSideEncryption, plain.ServerSideEncryption, get.ServerSideEncryption, head.ServerSideEncryption, part.ServerSideEncryption} {
				assert.Equal(t, want, got, "%d", i)
			}
			backend.answer = "<CompleteMultipartUploadResult/>"
			complete, err := c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: aws.String("u")})
			require.NoError(t, err)
			assert.Equal(t, want, complete.ServerSideEncryption)
			// What tells of an object, and not its content.
			backend.answer = "<Tagging><TagSet/></Tagging>"
			_, err = c.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: bucket, Key: key}, func(o *s3.Options) {
				o.HTTPClient = doer(func(r *http.Request) (*http.Response, error) {
					res, err := http.DefaultClient.Do(r)
					if err == nil {
						assert.Empty(t, res.Header.Get("X-Amz-Server-Side-Encryption"))
					}
					return res, err
				})
			})
			require.NoError(t, err)
		}
		said := 1
		if disk {
			said = 0
		}
		assert.Equal(t, said, strings.Count(logged.String(), "S3_ENCRYPTED_DISK"), "once, and not with every object")
	}
}

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }

func TestS3_FormThatAsksForWhatTheStoreDoesNotDo_IsRefused(t *testing.T) {
	endpoint, backend, keys := mustOpenWith(t, s3front.Options{Logger: log, Ignorant: true})
	for _, who := range []sigv4.Credentials{keys.Of("f"), storeKey} {
		for _, c := range []struct{ field, value, code string }{
			{"x-amz-server-side-encryption", "aws:kms", "NotImplemented"}, {"x-amz-server-side-encryption-customer-algorithm", "AES256", "NotImplemented"},
			{"x-amz-storage-class", "GLACIER", "InvalidStorageClass"},
		} {
			fields := append(formOf(who, true, "k", map[string]string{c.field: c.value}), [2]string{c.field, c.value})
			status, text := mustPost(t, http.DefaultClient, endpoint+"/bkt", fields, "f", "data")
			assert.GreaterOrEqual(t, status, 400, c.field)
			assert.Contains(t, text, "<Code>"+c.code+"</Code>", c.field)
		}
	}
	assert.Zero(t, backend.count())
	status, text := mustPost(t, http.DefaultClient, endpoint+"/bkt",
		append(formOf(keys.Of("f"), true, "k", map[string]string{"x-amz-server-side-encryption": "AES256"}), [2]string{"x-amz-server-side-encryption", "AES256"}), "f", "data")
	assert.Equal(t, http.StatusOK, status, text)
}
