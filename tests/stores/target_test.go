package stores

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/freeport"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// Development keys of the stores (stores/settings has them).
const (
	devAccessKey = "esb-dev-access"
	devSecretKey = "esb-dev-secret-change-in-production"
)

// startLimit and stopLimit bound the start and the end of a stand-in.
const (
	startLimit = time.Minute
	stopLimit  = time.Minute
)

// target is a store and who asks it.
type target struct {
	endpoint, region, accessKey, secretKey, sessionToken string
	// functions are the keys of functions that the store lets in, nil when it knows none.
	functions *functionkeys.Keys
}

// caller is somebody whose requests the store has to take.
type caller struct {
	who string
	target
	function bool
}

// callers are those: the owner of the store's key, and a function with a key of its own that may write to all.
func (at target) callers() []caller {
	all := []caller{{who: "the store's key", target: at}}
	if at.functions != nil {
		key := at.functions.Of(contractFunction)
		function := at
		function.accessKey, function.secretKey, function.sessionToken = key.AccessKeyID, key.SecretAccessKey, key.SessionToken
		all = append(all, caller{who: "a function's key", target: function, function: true})
	}
	return all
}

// gaps are those of the store, and for functions what they may not do besides.
func (c caller) gaps(store, notForFunctions map[string]string) map[string]string {
	all := maps.Clone(store)
	if c.function {
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, notForFunctions)
	}
	return all
}

// contractFunction is the function of functions.yml, so to say, that the checks run as.
const contractFunction = "lambda-contract"

func (at target) credentials() sigv4.Credentials {
	return sigv4.Credentials{AccessKeyID: at.accessKey, SecretAccessKey: at.secretKey, SessionToken: at.sessionToken}
}

func s3Target(t *testing.T) (target, map[string]string) {
	t.Helper()
	return choose(t, "S3", "s3", versitygwGaps)
}

func dynamoTarget(t *testing.T) (target, map[string]string) {
	t.Helper()
	return choose(t, "DYNAMODB", "db", dynoxideGaps)
}

// choose returns the store that is set in the environment, or starts a stand-in, which comes with its gaps.
func choose(t *testing.T, prefix, standIn string, gaps map[string]string) (target, map[string]string) {
	t.Helper()
	at := target{
		endpoint:  strings.TrimRight(setting(prefix+"_ENDPOINT", ""), "/"),
		region:    setting("AWS_REGION", "us-east-1"),
		accessKey: setting(prefix+"_ACCESS_KEY", devAccessKey),
		secretKey: setting(prefix+"_SECRET_KEY", devSecretKey),
	}
	keysFile := setting("FUNCTION_KEYS_FILE", "")
	if at.endpoint == "" {
		keysFile = filepath.Join(t.TempDir(), "function-keys")
		at.endpoint = mustStartStandIn(t, prefix+"_ADDR", standIn, keysFile, at)
	} else {
		t.Logf("the store is %s", at.endpoint)
		gaps = nil
	}
	if keysFile != "" {
		// Made only now: stores start before the gateway, which makes it on a box.
		var err error
		at.functions, err = functionkeys.Open(keysFile)
		require.NoError(t, err)
		// On a box the gateway writes it, by what functions.yml says.
		require.NoError(t, functionaccess.Save(filepath.Join(filepath.Dir(keysFile), "function-access.json"), functionaccess.List{
			Account: "123456789012", Functions: map[string]functionaccess.Function{at.functions.ID(contractFunction): {
				Name: contractFunction, S3: []functionaccess.Objects{{Bucket: "*", Access: functionaccess.Write}},
				Tables: []functionaccess.Table{{Table: "*", Access: functionaccess.Write}},
			}},
		}))
	}
	return at, gaps
}

// mustStartStandIn starts a native store on a free port, with data of its own, and ends it with the test.
func mustStartStandIn(t *testing.T, addrSetting, store, keysFile string, at target) string {
	t.Helper()
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	program := filepath.Join(root, ".esb", "bin", "stores")
	require.FileExists(t, program, "build the stores first: go tool task test:stores does")
	home := t.TempDir()
	addr := mustFindFreeAddress(t)
	log, err := os.Create(filepath.Join(home, "stores.log"))
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, program, "run", store)
	cmd.Env = append(os.Environ(), "ESB_HOME="+home, "FUNCTION_KEYS_FILE="+keysFile, "FUNCTION_ACCESS_FILE="+filepath.Join(filepath.Dir(keysFile), "function-access.json"), addrSetting+"="+addr, "S3_UI_ADDR=off", "DYNAMODB_TTL_INTERVAL_SECONDS=2", "S3_LIFECYCLE_INTERVAL_SECONDS=1", "S3_PUBLIC_ENDPOINT=http://files.example.com:9000",
		"S3_ACCESS_KEY="+at.accessKey, "S3_SECRET_KEY="+at.secretKey, "DYNAMODB_ACCESS_KEY="+at.accessKey, "DYNAMODB_SECRET_KEY="+at.secretKey)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the stand-in must end well: %v", err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of the stand-in:\n%s", text)
		}
	})
	url := "http://" + addr
	require.Eventually(t, func() bool {
		select {
		case err := <-ended:
			ended <- err
			return true // asked below
		default:
		}
		res, err := http.Get(url) //nolint:noctx // bound by Eventually
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode < http.StatusInternalServerError
	}, startLimit, 100*time.Millisecond, "%s must serve", store)
	select {
	case err := <-ended:
		ended <- err
		text, _ := os.ReadFile(log.Name())
		require.FailNow(t, "the stand-in has ended", "%v\n%s", err, text)
	default:
	}
	return url
}

func mustFindFreeAddress(t *testing.T) string {
	t.Helper()
	ports, err := freeport.Find(1)
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", ports[0])
}
