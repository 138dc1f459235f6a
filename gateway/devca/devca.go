// Package devca gives the HTTPS listeners their certificate: one from files, or one that a development CA made at
// the first start has signed.
//
// The development CA lives in a folder of its own: ca.crt, which a client may trust, ca.key, server.crt and
// server.key. All of it is kept over restarts. The server certificate is made anew when it nears its end, or
// when it lacks a name or address that it should have.
package devca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// checkEvery is how often a handshake looks for a changed or ageing certificate.
	checkEvery = 10 * time.Second
	// renewBefore is how long before its end a development certificate is made anew, and from when on the
	// end of one from files is warned of.
	renewBefore = 30 * 24 * time.Hour
)

// Options say where the certificate comes from.
type Options struct {
	// CertFile and KeyFile are PEM files, both or neither; with them there is no development CA.
	CertFile, KeyFile string
	// Dir is the folder of the development CA; it is made when missing.
	Dir string
	// Hosts are the names and addresses that the development certificate is good for, besides localhost,
	// 127.0.0.1, ::1 and the machine's name. See Hosts.
	Hosts []string
	// Logger is required.
	Logger *slog.Logger
	// Now is time.Now when nil.
	Now func() time.Time
}

// Source hands out the current certificate. It needs no Close: it looks at the files during handshakes.
type Source struct {
	opts    Options
	current atomic.Pointer[tls.Certificate]
	// nextCheck, in Unix nanoseconds, lets one handshake at a time look at the files.
	nextCheck atomic.Int64

	// mu orders checks and guards seen, the files as they were last tried, and warned, the certificate whose
	// end was warned of.
	mu     sync.Mutex
	seen   fileStamp
	warned time.Time
}

// Open reads the certificate, or makes the development CA and its first one.
func Open(opts Options) (*Source, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Source{opts: opts}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.nextCheck.Store(opts.Now().Add(checkEvery).UnixNano())
	return s, nil
}

// TLSConfig returns the settings of a listener: TLS 1.2 or newer, HTTP/2 and HTTP/1.1.
func (s *Source) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: s.GetCertificate,
	}
}

// GetCertificate is for tls.Config.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now, next := s.opts.Now(), s.nextCheck.Load()
	if now.UnixNano() >= next && s.nextCheck.CompareAndSwap(next, now.Add(checkEvery).UnixNano()) {
		if err := s.load(); err != nil {
			s.opts.Logger.Error("new TLS certificate refused, the old one stays", "error", err)
		}
	}
	return s.current.Load(), nil
}

// CAFile is the certificate of the development CA, for clients to trust; empty with certificate files.
func (s *Source) CAFile() string {
	if s.fromFiles() {
		return ""
	}
	return filepath.Join(s.opts.Dir, caCertFile)
}

func (s *Source) fromFiles() bool { return s.opts.CertFile != "" }

// load takes up what the files hold now, when that is new.
func (s *Source) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var cert *tls.Certificate
	var err error
	if s.fromFiles() {
		cert, err = s.loadFiles()
	} else {
		cert, err = s.loadDevelopment()
	}
	if err != nil {
		return err
	}
	if cert != nil {
		s.current.Store(cert)
	}
	return nil
}

// fileStamp tells one version of the certificate files from the next.
type fileStamp struct {
	certTime, keyTime int64 // Unix nanoseconds
	certSize, keySize int64
}

func stamp(certFile, keyFile string) (fileStamp, error) {
	c, err := os.Stat(certFile)
	if err != nil {
		return fileStamp{}, fmt.Errorf("TLS_CERT_FILE: %w", err)
	}
	k, err := os.Stat(keyFile)
	if err != nil {
		return fileStamp{}, fmt.Errorf("TLS_KEY_FILE: %w", err)
	}
	return fileStamp{c.ModTime().UnixNano(), k.ModTime().UnixNano(), c.Size(), k.Size()}, nil
}

// loadFiles returns nil when the files are as they were.
func (s *Source) loadFiles() (*tls.Certificate, error) {
	now, err := stamp(s.opts.CertFile, s.opts.KeyFile)
	if err != nil {
		return nil, err
	}
	cert := s.current.Load()
	if now != s.seen {
		// A pair that is refused is not tried, and logged, again until it changes.
		s.seen = now
		pair, err := tls.LoadX509KeyPair(s.opts.CertFile, s.opts.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("TLS_CERT_FILE %s with TLS_KEY_FILE %s: %w", s.opts.CertFile, s.opts.KeyFile, err)
		}
		cert = &pair
	}
	s.warnOfEnd(cert.Leaf)
	return cert, nil
}

func (s *Source) warnOfEnd(leaf *x509.Certificate) {
	if s.warned.Equal(leaf.NotAfter) || s.opts.Now().Add(renewBefore).Before(leaf.NotAfter) {
		return
	}
	s.warned = leaf.NotAfter
	s.opts.Logger.Warn("TLS certificate is about to expire or has expired, replace the files",
		"file", s.opts.CertFile, "not_after", leaf.NotAfter)
}

// loadDevelopment returns nil when the current certificate is good for longer.
func (s *Source) loadDevelopment() (*tls.Certificate, error) {
	now := s.opts.Now()
	if c := s.current.Load(); c != nil && now.Add(renewBefore).Before(c.Leaf.NotAfter) {
		return nil, nil
	}
	if err := os.MkdirAll(s.opts.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the development CA: %w", err)
	}
	ca, err := openAuthority(s.opts.Dir, now)
	if err != nil {
		return nil, err
	}
	names := subject(s.opts.Hosts)
	cert, err := readServer(s.opts.Dir)
	switch {
	case err == nil && names.coveredBy(cert.Leaf) && ca.signed(cert.Leaf) && now.Add(renewBefore).Before(cert.Leaf.NotAfter):
		return cert, nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		s.opts.Logger.Warn("the development certificate cannot be read and is made anew", "error", err)
	}
	cert, err = ca.issue(s.opts.Dir, names, now)
	if err != nil {
		return nil, err
	}
	s.opts.Logger.Info("development certificate made", "file", filepath.Join(s.opts.Dir, serverCertFile),
		"not_after", cert.Leaf.NotAfter, "names", cert.Leaf.DNSNames, "addresses", cert.Leaf.IPAddresses)
	return cert, nil
}
