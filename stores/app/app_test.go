package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/freeport"
	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/stores"
	"github.com/edge-serverless-box/esb/stores/confine"
	"github.com/edge-serverless-box/esb/stores/settings"
)

// limit bounds every wait; it is an upper bound for a badly loaded machine, not an expectation.
const limit = 90 * time.Second

// TestMain plays the stores' program: a test cannot kill its own process.
func TestMain(m *testing.M) {
	if confine.Is(os.Args) {
		os.Exit(confine.Run(os.Args))
	}
	if os.Getenv("ESB_PLAY") != "stores" {
		os.Exit(m.Run())
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func play() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := settings.Load(os.Getenv, os.Args[0])
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	// Others may take their place, and write the same file.
	temporary := filepath.Join(s.Home, fmt.Sprintf("pids.%d", os.Getpid()))
	return Run(ctx, s, log, stores.All(), func(pids func() map[stores.Store]int) {
		// Whoever waits for the processes reads them from here.
		var last string
		go func() {
			for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				data, _ := json.Marshal(pids())
				if string(data) == last {
					continue
				}
				last = string(data)
				_ = os.WriteFile(temporary, data, 0o600)
				_ = os.Rename(temporary, filepath.Join(s.Home, "pids"))
			}
		}()
	})
}

// box is a set of stores in a process of their own.
type box struct {
	env      []string
	settings settings.Settings
	s3       *s3.Client
	db       *dynamodb.Client
	cmd      *exec.Cmd
	// files are handed on to the next one, from descriptor 3 on.
	files []*os.File
}

func mustOpen(t *testing.T, more ...string) *box {
	t.Helper()
	bin := os.Getenv("ESB_BIN_DIR")
	if bin == "" {
		bin = "../../.esb/bin"
	}
	bin, err := filepath.Abs(bin)
	require.NoError(t, err)
	for _, name := range []string{"victoria-logs", "versitygw", "dynoxide", "registry"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Skipf("needs %s, made by \"go tool task build\", or ESB_BIN_DIR: %v", name, err)
		}
	}
	vars := map[string]string{
		"ESB_HOME": t.TempDir(), "ESB_BIN_DIR": bin, "DYNAMODB_TTL_INTERVAL_SECONDS": "1", "S3_SECRET_KEY": "a secret of S3", "DYNAMODB_SECRET_KEY": "a secret of DynamoDB",
		// Nothing has this address here, as nothing has the box's before the function network is there.
		"ESB_SUBNET": "198.51.100.0/24",
	}
	for i, name := range []string{"S3_ADDR", "S3_UI_ADDR", "DYNAMODB_ADDR", "VICTORIALOGS_ADDR", "REGISTRY_ADDR"} {
		port := freePort(t)
		vars[name] = fmt.Sprintf("127.0.0.1:%d", port)
		if i == 0 {
			vars[name] += fmt.Sprintf(",198.51.100.1:%d", port)
		}
	}
	for _, variable := range more {
		name, value, _ := strings.Cut(variable, "=")
		vars[name] = value
	}
	s, err := settings.Load(func(name string) string { return vars[name] }, "")
	require.NoError(t, err)
	b := &box{settings: s, env: append(os.Environ(), "ESB_PLAY=stores")}
	for name, value := range vars {
		b.env = append(b.env, name+"="+value)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: limit}
	b.s3 = s3.New(s3.Options{
		Region: s.Region, BaseEndpoint: aws.String("http://" + s.S3Addrs[0]), UsePathStyle: true, HTTPClient: client,
		Credentials: credentials.NewStaticCredentialsProvider(s.S3Keys.Access, string(s.S3Keys.Secret), ""),
	})
	b.db = dynamodb.New(dynamodb.Options{
		Region: s.Region, BaseEndpoint: aws.String("http://" + s.DynamoDBAddrs[0]), HTTPClient: client,
		Credentials: credentials.NewStaticCredentialsProvider(s.DynamoDBKeys.Access, string(s.DynamoDBKeys.Secret), ""),
	})
	b.start(t)
	t.Cleanup(func() {
		if b.cmd != nil {
			require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
			require.NoError(t, b.cmd.Wait(), "stores end well when they are asked to")
		}
	})
	return b
}

func freePort(t *testing.T) int {
	t.Helper()
	ports, err := freeport.Find(1)
	require.NoError(t, err)
	return ports[0]
}

// start starts the stores and waits until they are ready.
func (b *box) start(t *testing.T) {
	t.Helper()
	_ = os.Remove(filepath.Join(b.settings.Home, "pids"))
	b.cmd = exec.Command(os.Args[0])
	b.cmd.Env, b.cmd.ExtraFiles = b.env, b.files
	log, err := os.OpenFile(filepath.Join(b.settings.Home, "stores.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	b.cmd.Stdout, b.cmd.Stderr = log, log
	require.NoError(t, b.cmd.Start())
	for deadline := time.Now().Add(limit); len(b.pids()) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			require.FailNow(t, "the stores do not become ready", string(text))
		}
	}
}

// pids are the present processes of the stores; nil before they are ready.
func (b *box) pids() map[stores.Store]int {
	data, err := os.ReadFile(filepath.Join(b.settings.Home, "pids"))
	if err != nil {
		return nil
	}
	var pids map[stores.Store]int
	_ = json.Unmarshal(data, &pids)
	return pids
}

// replaced waits until the process of a store is another one than pid.
func (b *box) replaced(t *testing.T, store stores.Store, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		now := b.pids()[store]
		return now != 0 && now != pid
	}, limit, 20*time.Millisecond, "%s is not restarted", store)
}

// write puts something into each store, and returns when what is written survives a kill.
func (b *box) write(t *testing.T) (digest string) {
	t.Helper()
	ctx := t.Context()
	_, err := b.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("things")})
	require.NoError(t, err)
	_, err = b.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String("things"), Key: aws.String("a/b"), Body: strings.NewReader("hello"), Metadata: map[string]string{"colour": "blue"},
	})
	require.NoError(t, err)

	_, err = b.db.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: aws.String("items"), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}},
	})
	require.NoError(t, err)
	b.put(t, "kept", nil)

	res := b.post(t, b.registry(t)+"/v2/my/image/blobs/uploads/", "", nil, http.StatusAccepted)
	digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // of "hello"
	location := strings.Replace(res.Header.Get("Location"), "http://"+b.settings.RegistryAddrs[0], b.registry(t), 1)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, location+"&digest="+url.QueryEscape(digest), strings.NewReader("hello"))
	require.NoError(t, err)
	put, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, put.Body.Close())
	require.Equal(t, http.StatusCreated, put.StatusCode)

	line := fmt.Sprintf(`{"time":%q,"message":"a line","job":"lambda"}`, time.Now().UTC().Format(time.RFC3339Nano))
	b.post(t, b.logs(t)+"/insert/jsonline?_stream_fields=job&_msg_field=message&_time_field=time", "application/stream+json", []byte(line+"\n"), http.StatusOK)
	require.Eventually(t, func() bool { return strings.Contains(b.query(t), "a line") }, limit, 20*time.Millisecond, "the log line is not found")
	// It is written to the disk once a second: to a part of the lines, and one of the index, which a list of parts names.
	require.Eventually(t, func() bool { return b.hasParts("datadb") && b.hasParts("indexdb") }, limit, 20*time.Millisecond, "the log line is not on the disk")
	return digest
}

// hasParts tells whether VictoriaLogs has written something of a kind to the disk.
func (b *box) hasParts(kind string) bool {
	lists, _ := filepath.Glob(filepath.Join(b.settings.DataDir, "logs", "partitions", "*", kind, "parts.json"))
	for _, list := range lists {
		if names, err := os.ReadFile(list); err == nil && bytes.Contains(names, []byte(`"`)) {
			return true
		}
	}
	return false
}

func (b *box) put(t *testing.T, id string, ttl types.AttributeValue) {
	t.Helper()
	item := map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: id}}
	if ttl != nil {
		item["until"] = ttl
	}
	_, err := b.db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("items"), Item: item})
	require.NoError(t, err)
}

func (b *box) post(t *testing.T, url, contentType string, body []byte, want int) *http.Response {
	t.Helper()
	res, err := http.Post(url, contentType, bytes.NewReader(body)) //nolint:gosec // a test's own address
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, want, res.StatusCode, string(text))
	return res
}

// check finds what write has written.
func (b *box) check(t *testing.T, digest string) {
	t.Helper()
	ctx := t.Context()
	object, err := b.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("things"), Key: aws.String("a/b")})
	require.NoError(t, err)
	body, err := io.ReadAll(object.Body)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(body))
	assert.Equal(t, map[string]string{"colour": "blue"}, object.Metadata)

	item, err := b.db.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: aws.String("items"), Key: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: "kept"}}, ConsistentRead: aws.Bool(true),
	})
	require.NoError(t, err)
	assert.NotEmpty(t, item.Item)

	res, err := http.Get(b.registry(t) + "/v2/my/image/blobs/" + digest)
	require.NoError(t, err)
	blob, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Equal(t, "hello", string(blob))

	lines := b.query(t)
	assert.Equal(t, 1, strings.Count(lines, "a line"), lines)
}

// logs is the URL of VictoriaLogs with its credentials.
func (b *box) logs(t *testing.T) string {
	t.Helper()
	password, err := secretfile.Read(b.settings.LogsPasswordFile)
	require.NoError(t, err)
	return "http://" + b.settings.LogsUser + ":" + password + "@" + b.settings.LogsAddrs[0]
}

// registry is the URL of the registry with its credentials.
func (b *box) registry(t *testing.T) string {
	t.Helper()
	password, err := secretfile.Read(b.settings.RegistryPasswordFile)
	require.NoError(t, err)
	return "http://" + b.settings.RegistryUser + ":" + password + "@" + b.settings.RegistryAddrs[0]
}

// query returns what VictoriaLogs has of functions.
func (b *box) query(t *testing.T) string {
	t.Helper()
	res, err := http.Get(b.logs(t) + "/select/logsql/query?query=" + url.QueryEscape(`job:=lambda`))
	require.NoError(t, err)
	lines, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return string(lines)
}

func TestStores_AnyProcessIsKilled_ComesBackWithItsData(t *testing.T) {
	b := mustOpen(t)
	digest := b.write(t)
	b.check(t, digest)
	require.NoError(t, Health(t.Context(), b.settings, stores.All()))
	for _, store := range stores.All() {
		t.Run(string(store), func(t *testing.T) {
			pid := b.pids()[store]
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			// Clients need not do anything: their connections wait. A request may still meet the dying process, so
			// the check comes when that is over.
			b.replaced(t, store, pid)
			b.check(t, digest)
		})
	}
	t.Run("stores", func(t *testing.T) {
		before := b.pids()
		require.NoError(t, b.cmd.Process.Kill())
		_ = b.cmd.Wait()
		b.start(t)
		b.check(t, digest)
		for store, pid := range before {
			_, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/cmdline")
			if err == nil {
				cmdline, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
				assert.NotContains(t, string(cmdline), b.settings.DataDir, "the former %s ends with its supervisor", store)
			}
		}
	})
}

// Behind the fronts, dynoxide takes any signature: its port is nobody's.
func TestStores_NoOtherProgramReachesTheProcesses(t *testing.T) {
	if err := confine.Check(t.Context()); err != nil {
		t.Skip("network namespaces cannot be made here: ", err)
	}
	b := mustOpen(t)
	for store, pid := range b.pids() {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		require.NoError(t, err)
		ours, err := os.Readlink("/proc/self/ns/net")
		require.NoError(t, err)
		assert.NotEqual(t, ours, theirs, store)
	}
}

func TestStores_TimeToLive_DeletesExpiredItemsOnly(t *testing.T) {
	b := mustOpen(t)
	b.write(t)
	at := func(d time.Duration) types.AttributeValue {
		return &types.AttributeValueMemberN{Value: strconv.FormatInt(time.Now().Add(d).Unix(), 10)}
	}
	b.put(t, "expired", at(-time.Minute))
	b.put(t, "in an hour", at(time.Hour))
	b.put(t, "no time but a text", &types.AttributeValueMemberS{Value: "1"})
	b.put(t, "long ago, so no time", at(-6*365*24*time.Hour))
	_, err := b.db.UpdateTimeToLive(t.Context(), &dynamodb.UpdateTimeToLiveInput{
		TableName: aws.String("items"), TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String("until"), Enabled: aws.Bool(true)},
	})
	require.NoError(t, err)
	ids := func() []string {
		out, err := b.db.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("items")})
		require.NoError(t, err)
		var ids []string
		for _, item := range out.Items {
			ids = append(ids, item["id"].(*types.AttributeValueMemberS).Value)
		}
		return ids
	}
	require.Eventually(t, func() bool { return len(ids()) == 4 }, limit, 50*time.Millisecond)
	assert.ElementsMatch(t, []string{"kept", "in an hour", "no time but a text", "long ago, so no time"}, ids())
}

// A store's damaged file is that store's affair, and mended while the others serve.
func TestStores_DataOfOneIsDamaged_TheOthersServe(t *testing.T) {
	b := mustOpen(t)
	digest := b.write(t)
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, b.cmd.Wait())
	file := filepath.Join(b.settings.DataDir, "db", "dynamodb.sqlite")
	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, bytes.Repeat([]byte("noise"), 20_000), 0o600))

	b.start(t)
	log, err := os.ReadFile(filepath.Join(b.settings.Home, "stores.log"))
	require.NoError(t, err)
	assert.Contains(t, string(log), filepath.Dir(file))
	assert.Contains(t, string(log), "not a valid SQLite database")
	object, err := b.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("things"), Key: aws.String("a/b")})
	require.NoError(t, err)
	require.NoError(t, object.Body.Close())
	assert.Contains(t, b.query(t), "a line")
	require.ErrorContains(t, Health(t.Context(), b.settings, stores.All()), "db: ")

	// At once: of a file that is empty for a moment the store would make a new one.
	require.NoError(t, os.WriteFile(file+".whole", whole, 0o600))
	require.NoError(t, os.Rename(file+".whole", file))
	require.Eventually(t, func() bool { return Health(t.Context(), b.settings, stores.All()) == nil }, limit, 50*time.Millisecond)
	b.check(t, digest)
}

func TestRun_PortIsTaken_StartsNothingAndNamesTheSetting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	s, err := settings.Load(func(name string) string {
		return map[string]string{
			"ESB_HOME": t.TempDir(), "S3_ADDR": "off", "DYNAMODB_ADDR": "off", "VICTORIALOGS_ADDR": "off", "REGISTRY_ADDR": l.Addr().String(),
		}[name]
	}, "")
	require.NoError(t, err)
	err = Run(t.Context(), s, slog.New(slog.DiscardHandler), stores.All(), nil)
	require.ErrorContains(t, err, "REGISTRY_ADDR")
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

func TestRun_ProgramIsMissing_SaysWhich(t *testing.T) {
	s, err := settings.Load(func(name string) string {
		return map[string]string{
			"ESB_HOME": t.TempDir(), "ESB_BIN_DIR": t.TempDir(), "S3_ADDR": "off", "DYNAMODB_ADDR": "off", "VICTORIALOGS_ADDR": "off",
			"REGISTRY_ADDR": "127.0.0.1:" + strconv.Itoa(freePort(t)),
		}[name]
	}, "")
	require.NoError(t, err)
	require.ErrorContains(t, Run(t.Context(), s, slog.New(slog.DiscardHandler), stores.All(), nil), "ESB_BIN_DIR")
}
