package devca_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/devca"
)

// clock is a time that a test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func mustOpen(t *testing.T, opts devca.Options) *devca.Source {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = quiet()
	}
	s, err := devca.Open(opts)
	require.NoError(t, err)
	return s
}

func leaf(t *testing.T, s *devca.Source) *x509.Certificate {
	t.Helper()
	cert, err := s.GetCertificate(nil)
	require.NoError(t, err)
	return cert.Leaf
}

func pool(t *testing.T, caFile string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(caFile)
	require.NoError(t, err)
	p := x509.NewCertPool()
	require.True(t, p.AppendCertsFromPEM(data))
	return p
}

func TestOpen_FirstStart_MakesWhatClientsCanTrust(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	s := mustOpen(t, devca.Options{Dir: dir, Hosts: []string{"10.88.0.1", "box.example"}})

	var lc net.ListenConfig
	plain, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	listener := tls.NewListener(plain, s.TLSConfig())
	defer func() { assert.NoError(t, listener.Close()) }()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for range 2 {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, conn) // handshakes
			_ = conn.Close()
		}
	}()
	for _, name := range []string{"10.88.0.1", "box.example"} {
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: pool(t, s.CAFile()), ServerName: name}}
		conn, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	<-served

	host, err := os.Hostname()
	require.NoError(t, err)
	cert := leaf(t, s)
	for _, name := range []string{"localhost", host, "127.0.0.1", "::1"} {
		assert.NoError(t, cert.VerifyHostname(name))
	}
	assert.LessOrEqual(t, cert.NotAfter.Sub(cert.NotBefore), 825*24*time.Hour)
	for _, key := range []string{"ca.key", "server.key"} {
		info, err := os.Stat(filepath.Join(dir, key))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), key)
	}
}

func TestTLSConfig_RefusesOldVersions(t *testing.T) {
	s := mustOpen(t, devca.Options{Dir: t.TempDir()})
	client, server := net.Pipe()
	result := make(chan error, 1)
	go func() {
		result <- tls.Server(server, s.TLSConfig()).HandshakeContext(t.Context())
		_ = server.Close()
	}()
	err := tls.Client(client, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}).HandshakeContext(t.Context())
	require.Error(t, err)
	require.ErrorContains(t, <-result, "unsupported versions")
	require.NoError(t, client.Close())
}

func TestOpen_Restart_KeepsCAAndCertificate(t *testing.T) {
	dir := t.TempDir()
	first := leaf(t, mustOpen(t, devca.Options{Dir: dir, Hosts: []string{"a.example", "b.example"}}))
	again := leaf(t, mustOpen(t, devca.Options{Dir: dir, Hosts: []string{"a.example"}}))
	assert.Equal(t, first.Raw, again.Raw, "a name less needs no new certificate")
}

func TestOpen_NewName_MakesANewCertificateOfTheSameCA(t *testing.T) {
	dir := t.TempDir()
	first := leaf(t, mustOpen(t, devca.Options{Dir: dir}))
	s := mustOpen(t, devca.Options{Dir: dir, Hosts: []string{"10.0.0.9"}})
	second := leaf(t, s)
	assert.NotEqual(t, first.Raw, second.Raw)
	for _, cert := range []*x509.Certificate{first, second} {
		_, err := cert.Verify(x509.VerifyOptions{Roots: pool(t, s.CAFile())})
		require.NoError(t, err)
	}
	require.NoError(t, second.VerifyHostname("10.0.0.9"))
}

func TestGetCertificate_NearItsEnd_RenewsWhileRunning(t *testing.T) {
	dir := t.TempDir()
	c := &clock{time.Now()}
	s := mustOpen(t, devca.Options{Dir: dir, Now: c.now})
	first := leaf(t, s)
	c.t = first.NotAfter.Add(-31 * 24 * time.Hour)
	assert.Equal(t, first.Raw, leaf(t, s).Raw)
	c.t = first.NotAfter.Add(-29 * 24 * time.Hour)
	second := leaf(t, s)
	assert.True(t, second.NotAfter.After(c.t.Add(365*24*time.Hour)))
	_, err := second.Verify(x509.VerifyOptions{Roots: pool(t, s.CAFile()), CurrentTime: c.t})
	require.NoError(t, err)
}

func TestGetCertificate_CANearItsEnd_KeepsItsKey(t *testing.T) {
	dir := t.TempDir()
	c := &clock{time.Now()}
	s := mustOpen(t, devca.Options{Dir: dir, Now: c.now})
	oldRoots := pool(t, s.CAFile())
	c.t = c.t.Add(10*365*24*time.Hour - 20*24*time.Hour)
	cert := leaf(t, s)
	assert.True(t, cert.NotAfter.After(c.t.Add(365*24*time.Hour)), "the certificate must outlive the old CA")
	_, err := cert.Verify(x509.VerifyOptions{Roots: oldRoots, CurrentTime: c.t})
	require.NoError(t, err, "clients of the old CA certificate go on until its end")
}

func TestOpen_DamagedFiles(t *testing.T) {
	write := func(name, content string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, name))) }
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   string // empty: cured
	}{
		{"CA key is no PEM", write("ca.key", "x"), "ca.key: holds no PEM block PRIVATE KEY"},
		{"CA key is no key", write("ca.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "ca.key: asn1"},
		{"CA certificate is empty", write("ca.crt", ""), "ca.crt: holds no PEM block CERTIFICATE"},
		{"CA key is gone", remove("ca.key"), "ca.key is missing"},
		{"CA key is another's", func(t *testing.T, dir string) {
			other := t.TempDir()
			mustOpen(t, devca.Options{Dir: other})
			data, err := os.ReadFile(filepath.Join(other, "ca.key"))
			require.NoError(t, err)
			write("ca.key", string(data))(t, dir)
		}, "do not belong together"},
		{"first start was interrupted", remove("ca.crt"), ""},
		{"server certificate is damaged", write("server.crt", "x"), ""},
		{"server key is gone", remove("server.key"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			mustOpen(t, devca.Options{Dir: dir})
			c.damage(t, dir)
			s, err := devca.Open(devca.Options{Dir: dir, Logger: quiet()})
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				require.ErrorContains(t, err, "restore "+dir+", or delete it")
				return
			}
			require.NoError(t, err)
			_, err = leaf(t, s).Verify(x509.VerifyOptions{Roots: pool(t, s.CAFile())})
			require.NoError(t, err)
		})
	}
}

// pair makes certificate files by a development CA of their own.
func pair(t *testing.T, now time.Time) (cert, key []byte) {
	t.Helper()
	dir := t.TempDir()
	mustOpen(t, devca.Options{Dir: dir, Now: func() time.Time { return now }})
	cert, err := os.ReadFile(filepath.Join(dir, "server.crt"))
	require.NoError(t, err)
	key, err = os.ReadFile(filepath.Join(dir, "server.key"))
	require.NoError(t, err)
	return cert, key
}

func TestGetCertificate_FilesChange_AreTakenUpWhenTheyFit(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	write := func(path string, data []byte) { require.NoError(t, os.WriteFile(path, data, 0o600)) }
	cert1, key1 := pair(t, time.Now())
	cert2, key2 := pair(t, time.Now())
	write(certFile, cert1)
	write(keyFile, key1)

	c := &clock{time.Now()}
	s := mustOpen(t, devca.Options{CertFile: certFile, KeyFile: keyFile, Now: c.now})
	assert.Empty(t, s.CAFile())
	first := leaf(t, s)
	// The stamp of a file is its time and size; a test writes faster than any administrator.
	later := func(path string, d time.Duration) { require.NoError(t, os.Chtimes(path, c.t.Add(d), c.t.Add(d))) }

	write(certFile, cert2)
	later(certFile, time.Minute)
	c.t = c.t.Add(time.Minute)
	assert.Equal(t, first.Raw, leaf(t, s).Raw, "a certificate whose key is not there yet must not be used")

	write(keyFile, key2)
	later(keyFile, 2*time.Minute)
	assert.Equal(t, first.Raw, leaf(t, s).Raw, "files are looked at now and then only")
	c.t = c.t.Add(time.Minute)
	assert.NotEqual(t, first.Raw, leaf(t, s).Raw)

	require.NoError(t, os.Remove(keyFile))
	c.t = c.t.Add(time.Minute)
	assert.NotNil(t, leaf(t, s))
}

func TestOpen_BadFiles_NameTheSetting(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	opts := devca.Options{CertFile: certFile, KeyFile: keyFile, Logger: quiet()}
	_, err := devca.Open(opts)
	require.ErrorContains(t, err, "TLS_CERT_FILE: stat "+certFile)

	cert, _ := pair(t, time.Now())
	_, key := pair(t, time.Now())
	require.NoError(t, os.WriteFile(certFile, cert, 0o600))
	require.NoError(t, os.WriteFile(keyFile, key, 0o600))
	_, err = devca.Open(opts)
	require.ErrorContains(t, err, "private key does not match public key")
	require.ErrorContains(t, err, "TLS_KEY_FILE "+keyFile)
}

func TestOpen_FilesNearTheirEnd_WarnsOnce(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	cert, key := pair(t, time.Now())
	require.NoError(t, os.WriteFile(certFile, cert, 0o600))
	require.NoError(t, os.WriteFile(keyFile, key, 0o600))
	var log bytes.Buffer
	c := &clock{time.Now()}
	s := mustOpen(t, devca.Options{CertFile: certFile, KeyFile: keyFile, Now: c.now, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	require.Empty(t, log.String())
	c.t = leaf(t, s).NotAfter.Add(-time.Hour)
	for range 3 {
		c.t = c.t.Add(time.Minute)
		leaf(t, s)
	}
	assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("about to expire")), log.String())
}

func TestHosts(t *testing.T) {
	assert.Equal(t, []string{"127.0.0.1", "::1", "box.example"},
		devca.Hosts([]string{"127.0.0.1:443", "[::1]:443", "box.example:443", "nonsense"}))
	for _, host := range devca.Hosts([]string{":443"}) {
		assert.NotNil(t, net.ParseIP(host))
	}
}
