package clients

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/packages"
)

// TestPython_Boto3 runs testdata/python with Debian's boto3; what fails there stands in its output.
func TestPython_Boto3(t *testing.T) {
	require.NoError(t, packages.InstallFiles(t.Context(), packages.Need{Program: "/usr/lib/python3/dist-packages/boto3/__init__.py", Debian: []string{"python3", "python3-boto3"}}))
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-W", "ignore::ResourceWarning", filepath.Join("testdata", "python", "client_test.py"))
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Regexp(t, `Ran 9 tests`, string(out))
}

// cli runs Debian's AWS CLI, which gets each service's endpoint as a flag: it is older than the variables.
func cli(t *testing.T, endpoint string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/aws", append([]string{"--endpoint-url", endpoint, "--output", "json"}, args...)...)
	cmd.Env = append(environment(), "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		return stderr.String(), err
	}
	return stdout.String(), nil
}

func mustCLI(t *testing.T, endpoint string, args ...string) string {
	t.Helper()
	out, err := cli(t, endpoint, args...)
	require.NoError(t, err, "aws %s: %s", strings.Join(args, " "), out)
	return out
}

func TestAWSCLI(t *testing.T) {
	require.NoError(t, packages.InstallFiles(t.Context(), packages.Need{Program: "/usr/bin/aws", Debian: []string{"awscli"}}))
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	t.Run("lambda", func(t *testing.T) {
		require.NoError(t, os.WriteFile(at("event.json"), []byte(`{"body":"{\"n\":1}"}`), 0o600))
		invoke := func(function string, more ...string) (map[string]any, string) {
			t.Helper()
			out := mustCLI(t, box.HTTPURL, append([]string{"lambda", "invoke", "--function-name", function, "--payload", "fileb://" + at("event.json"), at("out.json")}, more...)...)
			var answer map[string]any
			require.NoError(t, json.Unmarshal([]byte(out), &answer))
			data, err := os.ReadFile(at("out.json"))
			require.NoError(t, err)
			return answer, string(data)
		}
		answer, result := invoke("lambda-respond", "--log-type", "Tail")
		assert.JSONEq(t, `{"n":1}`, result)
		assert.NotEmpty(t, answer["LogResult"])
		answer, _ = invoke("lambda-respond", "--invocation-type", "Event")
		assert.EqualValues(t, 202, answer["StatusCode"])
		answer, _ = invoke("lambda-respond", "--invocation-type", "DryRun")
		assert.EqualValues(t, 204, answer["StatusCode"])
		text, err := cli(t, box.HTTPURL, "lambda", "invoke", "--function-name", "nobody", at("out.json"))
		require.Error(t, err)
		assert.Contains(t, text, "ResourceNotFoundException")
		require.NoError(t, os.WriteFile(at("event.json"), []byte(`{"body":"{\"action\":\"panic\"}"}`), 0o600))
		answer, _ = invoke("lambda-chaos")
		assert.Equal(t, "Unhandled", answer["FunctionError"])
	})
	t.Run("s3", func(t *testing.T) {
		var id [6]byte
		_, _ = rand.Read(id[:]) // never fails
		bucket := "cli-" + hex.EncodeToString(id[:])
		mustCLI(t, box.S3URL, "s3", "mb", "s3://"+bucket)
		big := make([]byte, 17<<20)
		_, _ = rand.Read(big)
		require.NoError(t, os.MkdirAll(at("tree/deep"), 0o755))
		for name, data := range map[string][]byte{"big": big, "a b+ü.txt": []byte("text"), "deep/x": []byte("x")} {
			file := filepath.Join(at("tree"), name)
			require.NoError(t, os.WriteFile(file, data, 0o600))
			// Older than the objects will be, whose times are whole seconds: sync compares them.
			hourAgo := time.Now().Add(-time.Hour)
			require.NoError(t, os.Chtimes(file, hourAgo, hourAgo))
		}
		mustCLI(t, box.S3URL, "s3", "sync", at("tree"), "s3://"+bucket+"/tree")
		require.NoError(t, os.Remove(filepath.Join(at("tree"), "deep/x")))
		out := mustCLI(t, box.S3URL, "s3", "sync", "--delete", at("tree"), "s3://"+bucket+"/tree")
		assert.Contains(t, out, "delete: s3://"+bucket+"/tree/deep/x")
		assert.NotContains(t, out, "upload:", "nothing has changed")
		mustCLI(t, box.S3URL, "s3", "sync", "s3://"+bucket+"/tree", at("back"))
		data, err := os.ReadFile(at("back/big"))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(big, data))
		link := strings.TrimSpace(mustCLI(t, box.S3URL, "s3", "presign", "s3://"+bucket+"/tree/a b+ü.txt"))
		answer, err := box.Do(t.Context(), "GET", link, "", nil)
		require.NoError(t, err)
		assert.Equal(t, "text", string(answer.Body))
		mustCLI(t, box.S3URL, "s3", "mv", "s3://"+bucket+"/tree/big", "s3://"+bucket+"/moved")
		out = mustCLI(t, box.S3URL, "s3", "ls", "--recursive", "s3://"+bucket)
		assert.Contains(t, out, "moved")
		assert.NotContains(t, out, "tree/big")
		mustCLI(t, box.S3URL, "s3api", "put-bucket-lifecycle-configuration", "--bucket", bucket, "--lifecycle-configuration",
			`{"Rules":[{"ID":"t","Status":"Enabled","Filter":{"Prefix":"tmp/"},"Expiration":{"Days":1}}]}`)
		text, err := cli(t, box.S3URL, "s3api", "put-bucket-website", "--bucket", bucket, "--website-configuration", `{"IndexDocument":{"Suffix":"i.html"}}`)
		require.Error(t, err)
		assert.Contains(t, text, "NotImplemented")
		mustCLI(t, box.S3URL, "s3", "rb", "--force", "s3://"+bucket)
	})
	t.Run("dynamodb", func(t *testing.T) {
		mustCLI(t, box.DynamoDBURL, "dynamodb", "create-table", "--table-name", "cli-items", "--billing-mode", "PAY_PER_REQUEST",
			"--attribute-definitions", "AttributeName=id,AttributeType=S", "--key-schema", "AttributeName=id,KeyType=HASH", "--stream-specification", "StreamEnabled=true,StreamViewType=KEYS_ONLY")
		mustCLI(t, box.DynamoDBURL, "dynamodb", "put-item", "--table-name", "arn:aws:dynamodb:us-east-1:123456789012:table/cli-items", "--item", `{"id":{"S":"1"}}`)
		out := mustCLI(t, box.DynamoDBURL, "dynamodb", "scan", "--table-name", "cli-items")
		assert.Contains(t, out, `"Count": 1`)
		out = mustCLI(t, box.DynamoDBURL, "dynamodbstreams", "list-streams", "--table-name", "cli-items")
		assert.Contains(t, out, "arn:aws:dynamodb:us-east-1:123456789012:table/cli-items/stream/")
		mustCLI(t, box.DynamoDBURL, "dynamodb", "describe-limits")
		mustCLI(t, box.DynamoDBURL, "dynamodb", "delete-table", "--table-name", "cli-items")
	})
}
