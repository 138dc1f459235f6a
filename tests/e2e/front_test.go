package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

func TestHTTPS_DevelopmentCAIsEnoughAndHTTP2IsSpoken(t *testing.T) {
	ca, err := box.DevelopmentCA(t.Context())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	for _, host := range []string{"127.0.0.1", "localhost"} {
		url := strings.Replace(box.HTTPSURL, "127.0.0.1", host, 1) + "/api/echo"
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"message":"hello"}`))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := transport.RoundTrip(req)
		require.NoError(t, err)
		assert.NoError(t, res.Body.Close())
		assert.Equal(t, http.StatusOK, res.StatusCode)
		assert.Equal(t, 2, res.ProtoMajor)
		assert.NotEmpty(t, res.Header.Get("X-Amzn-Requestid"))
	}
}

func TestReload_TakesAChangedFileOverAndRefusesAMistake(t *testing.T) {
	before, err := os.ReadFile(routingFile)
	require.NoError(t, err)
	ask := func() int {
		answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+"/api/added-later", token, []byte(`{"message":"hello"}`))
		require.NoError(t, err)
		return answer.Status
	}
	write := func(text string) {
		require.NoError(t, os.WriteFile(routingFile, []byte(text), 0o600))
	}
	defer func() {
		write(string(before))
		stack.Eventually(t, func() bool { return ask() == http.StatusNotFound }, "the route must go with its line")
	}()

	require.Equal(t, http.StatusNotFound, ask())
	write(string(before) + "  - {path: /api/added-later, method: POST, function: lambda-echo}\n")
	stack.Eventually(t, func() bool { return ask() == http.StatusOK }, "the gateway must notice the changed file")

	write(string(before) + "  - {path: /api/added-later, method: POST, function: lambda-echo, authh: none}\n")
	refused, err := box.Do(t.Context(), http.MethodPost, box.AdminURL+"/reload", "", nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusUnprocessableEntity, refused.Status)
	assert.Regexp(t, `routing\.yml:\d+: .*authh`, string(refused.Body))
	assert.Equal(t, http.StatusOK, ask(), "the old configuration stays")
}
