package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// zipped makes a zip file of names and contents.
func zipped(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, text := range files {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(0o644)
		out, err := w.CreateHeader(h)
		require.NoError(t, err)
		_, err = out.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// objects is the box's S3 store, with the bucket of the tests' code.
func objects(t *testing.T) (put func(key string, data []byte)) {
	t.Helper()
	client := s3.New(s3.Options{BaseEndpoint: &box.S3URL, Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(stack.AccessKey, stack.SecretKey, "")})
	_, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("e2e-code")})
	require.NoError(t, err)
	return func(key string, data []byte) {
		_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("e2e-code"), Key: &key, Body: bytes.NewReader(data)})
		require.NoError(t, err)
	}
}

const codeFromS3 = `import helper
def handler(event, context):
    return {"statusCode": 200, "body": "%s " + helper.NAME}
`

// TestCode_FromS3WithALayer_IsPickedUpWhenItChanges puts the code of a function there that has been configured, without
// any, since the box was started.
func TestCode_FromS3WithALayer_IsPickedUpWhenItChanges(t *testing.T) {
	assert.Equal(t, http.StatusServiceUnavailable, box.Post(t, "/e2e/code-s3", "", "{}").Status, "nothing is there yet")
	// Whoever invokes by name is told that it is for good, and why.
	_, err := operator().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("code-s3")})
	var missing *types.ResourceConflictException
	require.ErrorAs(t, err, &missing)
	assert.Contains(t, missing.ErrorMessage(), "code, or one of its layers, is missing")
	put := objects(t)
	put("layer.zip", zipped(t, map[string]string{"python/helper.py": "NAME = 'layer'\n"}))
	evil := zipped(t, map[string]string{"../app.py": ""})
	put("app.zip", evil)
	var invalid *types.InvalidZipFileException
	stack.Eventually(t, func() bool {
		_, err := operator().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("code-s3")})
		return errors.As(err, &invalid)
	}, "evil code is refused")
	answers := func(want string) {
		t.Helper()
		stack.Eventually(t, func() bool {
			answer := box.Post(t, "/e2e/code-s3", "", "{}")
			return answer.Status == http.StatusOK && string(answer.Body) == want
		}, "the answer %s", want)
	}
	put("app.zip", zipped(t, map[string]string{"app.py": fmt.Sprintf(codeFromS3, "one")}))
	answers("one layer")
	put("app.zip", zipped(t, map[string]string{"app.py": fmt.Sprintf(codeFromS3, "two")}))
	answers("two layer")
	put("layer.zip", zipped(t, map[string]string{"python/helper.py": "NAME = 'other'\n"}))
	answers("two other")
	// What cannot start leaves the code before serving, and is said.
	put("app.zip", evil)
	stack.Eventually(t, func() bool {
		answers("two other")
		return strings.Contains(poolOf(t, "code-s3").Error, "the configuration before the present one still serves")
	}, "evil code is refused, and said to be")
	put("app.zip", zipped(t, map[string]string{"app.py": fmt.Sprintf(codeFromS3, "three")}))
	answers("three other")
}

// TestCode_WrongHandler_IsTheRuntimesError is AWS's answer to a handler that is not there.
func TestCode_WrongHandler_IsTheRuntimesError(t *testing.T) {
	assert.Equal(t, http.StatusBadGateway, box.Post(t, "/e2e/code-wrong", "", "{}").Status)
	box.RequireLogged(t, "code-wrong", "Runtime.HandlerNotFound")
}

// TestCode_Folder_RunsOnNodeAndPython runs the samples' sources without an image of them.
func TestCode_Folder_RunsOnNodeAndPython(t *testing.T) {
	for _, path := range []string{"/e2e/code-node", "/e2e/code-python"} {
		answer := box.Post(t, path, "", `{"name":"folder"}`)
		require.Equal(t, http.StatusOK, answer.Status, "%s: %s", path, answer.Body)
		var body struct{ Message string }
		require.NoError(t, json.Unmarshal(answer.Body, &body))
		assert.Contains(t, body.Message, "hello", filepath.Base(path))
	}
}
