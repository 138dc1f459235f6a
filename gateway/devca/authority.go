package devca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/guard/wholefile"
)

const (
	caCertFile     = "ca.crt"
	caKeyFile      = "ca.key"
	serverCertFile = "server.crt"
	serverKeyFile  = "server.key"

	caLife = 10 * 365 * 24 * time.Hour
	// serverLife is the longest that Apple's systems accept from a CA that a user added.
	serverLife = 825 * 24 * time.Hour
	// backdate allows for clients whose clock is a little behind.
	backdate = time.Hour
)

// authority is the development CA.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// openAuthority reads the CA in dir, or makes one. The key is written first: a key without a certificate is a first
// start that was interrupted, and is gone on with; a certificate without a key is an error.
func openAuthority(dir string, now time.Time) (*authority, error) {
	certPath, keyPath := filepath.Join(dir, caCertFile), filepath.Join(dir, caKeyFile)
	// With the key anybody can be any server for those who trust the CA.
	if err := secretfile.Check(keyPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the development CA: %w", err)
	}
	key, err := readKey(keyPath)
	noKey := errors.Is(err, os.ErrNotExist)
	if err != nil && !noKey {
		return nil, damaged(dir, err)
	}
	cert, err := readCert(certPath)
	noCert := errors.Is(err, os.ErrNotExist)
	if err != nil && !noCert {
		return nil, damaged(dir, err)
	}
	switch {
	case noKey && !noCert:
		return nil, damaged(dir, fmt.Errorf("%s is missing", keyPath))
	case noKey:
		if key, err = newKey(keyPath); err != nil {
			return nil, fmt.Errorf("make the development CA: %w", err)
		}
		return newAuthority(certPath, key, now)
	case noCert:
		return newAuthority(certPath, key, now)
	}
	if !matches(cert, key) || !cert.IsCA {
		return nil, damaged(dir, fmt.Errorf("%s and %s do not belong together", certPath, keyPath))
	}
	if !now.Add(renewBefore).Before(cert.NotAfter) {
		// The key stays, so that what trusts the old certificate goes on until its end.
		return newAuthority(certPath, key, now)
	}
	return &authority{cert: cert, key: key}, nil
}

func damaged(dir string, err error) error {
	return fmt.Errorf("the development CA is damaged: %w; restore %s, or delete it to have a new CA made (clients must then trust that one)", err, dir)
}

func newAuthority(certPath string, key crypto.Signer, now time.Time) (*authority, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "esb development CA (" + host + ")", Organization: []string{"edge serverless box"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the development CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the development CA: %w", err)
	}
	if err := wholefile.Write(certPath, encode("CERTIFICATE", der), 0o644); err != nil {
		return nil, fmt.Errorf("make the development CA: %w", err)
	}
	return &authority{cert: cert, key: key}, nil
}

// signed says whether the CA signed cert.
func (a *authority) signed(cert *x509.Certificate) bool {
	return cert.CheckSignatureFrom(a.cert) == nil
}

// issue makes a server certificate for names with a new key, and keeps both in dir.
func (a *authority) issue(dir string, names names, now time.Time) (*tls.Certificate, error) {
	key, err := newKey(filepath.Join(dir, serverKeyFile))
	if err != nil {
		return nil, fmt.Errorf("make the development certificate: %w", err)
	}
	notAfter := now.Add(serverLife - backdate)
	if notAfter.After(a.cert.NotAfter) {
		notAfter = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "esb gateway"},
		NotBefore:    now.Add(-backdate),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     names.dns,
		IPAddresses:  names.ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("make the development certificate: %w", err)
	}
	chain := append(encode("CERTIFICATE", der), encode("CERTIFICATE", a.cert.Raw)...)
	if err := wholefile.Write(filepath.Join(dir, serverCertFile), chain, 0o644); err != nil {
		return nil, fmt.Errorf("make the development certificate: %w", err)
	}
	return readServer(dir)
}

func readServer(dir string) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, serverCertFile), filepath.Join(dir, serverKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read %s and %s: %w", filepath.Join(dir, serverCertFile), serverKeyFile, err)
	}
	return &cert, nil
}

// names is what a certificate is good for.
type names struct {
	dns []string
	ips []net.IP
}

// subject returns the names of this machine and hosts.
func subject(hosts []string) names {
	n := names{dns: []string{"localhost"}, ips: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	if host, err := os.Hostname(); err == nil {
		hosts = append([]string{host}, hosts...)
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			if !slices.ContainsFunc(n.ips, ip.Equal) {
				n.ips = append(n.ips, ip)
			}
		} else if host != "" && !slices.Contains(n.dns, host) {
			n.dns = append(n.dns, host)
		}
	}
	return n
}

// coveredBy says whether cert is good for every one of n; it may be good for more.
func (n names) coveredBy(cert *x509.Certificate) bool {
	for _, host := range n.dns {
		if !slices.Contains(cert.DNSNames, host) {
			return false
		}
	}
	for _, ip := range n.ips {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// Hosts returns the names and addresses by which clients reach listeners on addrs ("host:port"): their hosts,
// and for a wildcard those of all interfaces of this machine.
func Hosts(addrs []string) []string {
	var hosts []string
	wildcard := false
	for _, addr := range addrs {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			continue
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			wildcard = true
			continue
		}
		hosts = append(hosts, host)
	}
	if wildcard {
		hosts = append(hosts, interfaceAddrs()...)
	}
	return hosts
}

func interfaceAddrs() []string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // the certificate then lacks the addresses; localhost and the names still work
	}
	var hosts []string
	for _, addr := range addrs {
		if ipnet, ok := addr.(*net.IPNet); ok && ipnet.IP.IsGlobalUnicast() {
			hosts = append(hosts, ipnet.IP.String())
		}
	}
	return hosts
}

func newKey(path string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := wholefile.Write(path, encode("PRIVATE KEY", der), 0o600); err != nil {
		return nil, err
	}
	return key, nil
}

func readKey(path string) (crypto.Signer, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: is a key that cannot sign", path)
	}
	return signer, nil
}

func readCert(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: holds no PEM block %s", path, kind)
	}
	return block.Bytes, nil
}

func matches(cert *x509.Certificate, key crypto.Signer) bool {
	a, errA := x509.MarshalPKIXPublicKey(cert.PublicKey)
	b, errB := x509.MarshalPKIXPublicKey(key.Public())
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// serial is random, 127 bits, as CAs number certificates.
func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}
