package app

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/handover"
	"github.com/edge-serverless-box/esb/stores"
)

// asking has a store asked ten times a second, once for each time, until stop, which returns what failed.
func asking(what string, once func() error) (stop func() (answered int, failures []string)) {
	var mu sync.Mutex
	var asked sync.WaitGroup
	answered, failures := 0, []string{}
	done := make(chan struct{})
	asked.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			asked.Go(func() {
				began := time.Now()
				err := once()
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failures = append(failures, fmt.Sprintf("%s, after %s: %v", what, time.Since(began), err))
				} else {
					answered++
				}
			})
		}
	})
	return func() (int, []string) {
		close(done)
		asked.Wait()
		return answered, failures
	}
}

// TestStores_OthersTakeTheirPlace_NoClientIsRefused: other settings, or another release, are no reason for functions to fail.
func TestStores_OthersTakeTheirPlace_NoClientIsRefused(t *testing.T) {
	b := mustOpen(t)
	digest := b.write(t)
	before, old := b.pids(), b.cmd
	once := func(o *s3.Options) { o.RetryMaxAttempts = 1 }
	_, err := b.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("handed-over")})
	require.NoError(t, err)
	kept := &http.Client{Timeout: limit} // it keeps its connections
	stops := []func() (int, []string){
		asking("S3", func() error {
			_, err := b.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("handed-over")}, once)
			return err
		}),
		asking("DynamoDB", func() error {
			_, err := b.db.ListTables(t.Context(), &dynamodb.ListTablesInput{}, func(o *dynamodb.Options) { o.RetryMaxAttempts = 2 }) // it keeps its connection, which may end as it asks
			return err
		}),
	}
	for _, store := range stores.All() {
		stops = append(stops, asking(string(store), func() error {
			resp, err := kept.Get("http://" + b.settings.Addrs(store)[0] + store.HealthPath())
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("status %d", resp.StatusCode)
			}
			return nil
		}))
	}
	b.env = append(b.env, "STORES_REPLACES=true")
	began := time.Now()
	b.start(t)
	require.NoError(t, old.Wait(), "those that are replaced end well")
	t.Logf("others serve after %s", time.Since(began))
	b.check(t, digest)
	for _, stop := range stops {
		answered, failures := stop()
		assert.Positive(t, answered)
		assert.Empty(t, failures)
	}
	for store, pid := range b.pids() {
		assert.NotEqual(t, before[store], pid, "%s is another process", store)
	}
	_, err = os.Stat(filepath.Join(b.settings.DataDir, "handover"))
	require.NoError(t, err, "and so on")
}

// TestStores_AreKilled_ClientsWaitForTheNextOnes, which are started with the sockets that somebody has held for them.
func TestStores_AreKilled_ClientsWaitForTheNextOnes(t *testing.T) {
	b := mustOpen(t)
	held, err := handover.Hold(t.Context(), b.settings.DataDir)
	require.NoError(t, err)
	require.NotNil(t, held)
	t.Cleanup(held.Close)
	require.NoError(t, b.cmd.Process.Kill())
	require.Error(t, b.cmd.Wait())
	waiting := map[stores.Store]net.Conn{}
	for _, store := range stores.All() {
		c, err := net.Dial("tcp", b.settings.Addrs(store)[0])
		require.NoError(t, err, store)
		t.Cleanup(func() { _ = c.Close() })
		waiting[store] = c
	}
	names, files, err := held.Files()
	require.NoError(t, err)
	text, err := handover.Describe(3, names)
	require.NoError(t, err)
	b.env, b.files = append(b.env, "STORES_SOCKETS="+text), files
	b.start(t)
	for _, f := range files {
		require.NoError(t, f.Close())
	}
	for store, c := range waiting {
		require.NoError(t, c.SetDeadline(time.Now().Add(limit)))
		_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", store.HealthPath())
		require.NoError(t, err)
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err, store)
		_ = answer.Body.Close()
	}
	require.NoError(t, Health(t.Context(), b.settings, stores.All()))
}

// TestStores_ReplaceNobody_Start: whoever was to be replaced may have ended.
func TestStores_ReplaceNobody_Start(t *testing.T) {
	b := mustOpen(t, "STORES_REPLACES=true")
	require.NoError(t, Health(t.Context(), b.settings, stores.All()))
}

// TestStores_AnAddressThatHoldsTheOneBefore_IsServed: who lets other machines in changes 127.0.0.1 to 0.0.0.0.
func TestStores_AnAddressThatHoldsTheOneBefore_IsServed(t *testing.T) {
	b := mustOpen(t)
	old := b.cmd
	_, port, err := net.SplitHostPort(b.settings.Addrs(stores.S3)[0])
	require.NoError(t, err)
	b.env = append(b.env, "S3_ADDR=0.0.0.0:"+port, "ESB_ALLOW_INSECURE_DEFAULTS=true", "STORES_REPLACES=true")
	b.start(t)
	require.NoError(t, old.Wait(), "those that are replaced end well")
	_, err = b.s3.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	require.NoError(t, err)
}
