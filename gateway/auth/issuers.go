package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/guard/statefile"
)

const (
	// fetchTimeout bounds one fetch of keys, discovery included.
	fetchTimeout = 10 * time.Second
	// maxDocumentBytes bounds what an issuer may answer.
	maxDocumentBytes = 1 << 20
	// demandGap is the least time between fetches that tokens with unknown keys bring about, so that nobody can make the box
	// hammer an issuer.
	demandGap = 10 * time.Second
	// demandWait is how long a request waits for such a fetch.
	demandWait = 5 * time.Second
	// firstRetry and lastRetry bound the pause after a fetch that failed; it doubles.
	firstRetry = 5 * time.Second
	lastRetry  = 5 * time.Minute
	// minRSABits is the least size of an RSA key (RFC 7518, 3.3).
	minRSABits = 2048
)

// IssuersOptions configure Issuers.
type IssuersOptions struct {
	// Dir keeps the keys over a restart; it is made when needed.
	Dir    string
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Issuers hold the keys of OpenID Connect issuers: fetched in the background, kept on disk, and good for the issuer's grace
// time after the last fetch that worked. They are safe for concurrent use; Close ends the fetching.
type Issuers struct {
	dir string
	log *slog.Logger
	now func() time.Time

	// mu guards current, those that fetch.
	mu      sync.Mutex
	current issuerSet
}

// issuerSet are the issuers of one configuration, by what its routes hold. It never changes.
type issuerSet map[*gateway.Issuer]*issuer

// issuer fetches and keeps the keys of one issuer.
type issuer struct {
	spec   *gateway.Issuer
	file   string
	client *http.Client
	log    *slog.Logger
	now    func() time.Time
	keys   atomic.Pointer[keySet]

	// cancel ends the fetching; nil before it has begun.
	cancel context.CancelFunc
	ended  chan struct{}
	wake   chan struct{}

	// mu guards attempted, when the last fetch began, and pending, which is closed when the one that runs, or is about to,
	// has ended, and nil when there is none.
	mu        sync.Mutex
	attempted time.Time
	pending   chan struct{}
}

// keySet is what an issuer has published. It never changes.
type keySet struct {
	raw     []byte
	keys    []publicKey
	fetched time.Time
	// verified are the tokens that were checked with these keys in the last minute.
	verified *cache
}

type publicKey struct {
	id string
	// algorithm is empty when the issuer does not say.
	algorithm string
	key       any
}

// OpenIssuers returns Issuers that know none yet.
func OpenIssuers(o IssuersOptions) *Issuers {
	i := &Issuers{dir: o.Dir, log: o.Logger, now: o.Now}
	if i.now == nil {
		i.now = time.Now
	}
	return i
}

// compile returns the issuers of specs. One that has not changed is the current one; a new one has the keys on disk and does not
// fetch any before use.
func (i *Issuers) compile(specs []*gateway.Issuer) (issuerSet, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := make(issuerSet, len(specs))
	for _, spec := range specs {
		for _, s := range i.current {
			if reflect.DeepEqual(s.spec, spec) {
				next[spec] = s
			}
		}
		if next[spec] != nil {
			continue
		}
		s, err := i.open(spec)
		if err != nil {
			return nil, fmt.Errorf("issuer %s: %w", spec.Name, err)
		}
		next[spec] = s
	}
	return next, nil
}

// use makes next the current issuers: new ones begin to fetch, those that are not in it end.
func (i *Issuers) use(next issuerSet) {
	i.mu.Lock()
	defer i.mu.Unlock()
	stay := make(map[*issuer]bool, len(next))
	for _, s := range next {
		stay[s] = true
		if s.cancel == nil {
			s.start()
		}
	}
	for _, s := range i.current {
		if !stay[s] {
			s.close()
		}
	}
	i.current = next
}

// Close ends the fetching and waits for it.
func (i *Issuers) Close() { i.use(nil) }

func (i *Issuers) open(spec *gateway.Issuer) (*issuer, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if spec.CAFile != "" {
		pem, err := os.ReadFile(spec.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s has no certificate in PEM", spec.CAFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	sum := sha256.Sum256([]byte(spec.URL + "\x00" + spec.JWKSURL))
	s := &issuer{
		spec: spec, file: filepath.Join(i.dir, spec.Name+"-"+hex.EncodeToString(sum[:6])+".json"), log: i.log, now: i.now,
		client: &http.Client{Transport: transport, Timeout: fetchTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 5 {
				return errors.New("too many redirects")
			}
			return secure(r.URL)
		}},
		ended: make(chan struct{}), wake: make(chan struct{}, 1), pending: make(chan struct{}),
	}
	if err := s.load(); err != nil {
		s.log.Warn("kept keys of an issuer are not used", "issuer", spec.Name, "file", s.file, "error", err.Error())
	}
	return s, nil
}

// secure refuses plain HTTP, but for an issuer on this machine.
func secure(u *url.URL) error {
	if u.Scheme == "https" {
		return nil
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%s://%s is not https", u.Scheme, u.Host)
}

func (s *issuer) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.ended)
		s.run(ctx)
	}()
}

func (s *issuer) close() {
	s.cancel()
	<-s.ended
}

// run fetches at once, then every Refresh, sooner when a fetch has failed or one is demanded.
func (s *issuer) run(ctx context.Context) {
	retry := firstRetry
	for {
		s.mu.Lock()
		s.attempted = s.now()
		if s.pending == nil {
			s.pending = make(chan struct{})
		}
		s.mu.Unlock()
		set, err := s.fetch(ctx)
		s.mu.Lock()
		// Both at once: whoever has seen these keys and misses one does not wait for the fetch that brought them.
		if err == nil {
			s.keys.Store(set)
		}
		close(s.pending)
		s.pending = nil
		s.mu.Unlock()
		if err == nil {
			s.keep(set)
		}
		pause := s.spec.Refresh
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			fetches.WithLabelValues(s.spec.Name, "error").Inc()
			keys := s.keys.Load()
			s.log.Warn("keys of an issuer could not be fetched", "issuer", s.spec.Name, "error", err.Error(), "usable", keys.usable(s.spec, s.now()))
			pause = min(retry, s.spec.Refresh)
			retry = min(2*retry, lastRetry)
		} else {
			fetches.WithLabelValues(s.spec.Name, "ok").Inc()
			retry = firstRetry
		}
		// A tenth more or less keeps boxes that start together from asking together.
		timer := time.NewTimer(pause + time.Duration((rand.Float64()-0.5)*0.2*float64(pause)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// demand asks for a fetch, if the last one is not too recent, and waits for it.
func (s *issuer) demand(ctx context.Context) {
	s.mu.Lock()
	if s.pending == nil {
		if s.now().Sub(s.attempted) < demandGap {
			s.mu.Unlock()
			return
		}
		s.pending = make(chan struct{})
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	pending := s.pending
	s.mu.Unlock()
	timer := time.NewTimer(demandWait)
	defer timer.Stop()
	select {
	case <-pending:
	case <-timer.C:
	case <-ctx.Done():
	case <-s.ended:
	}
}

// fetch gets the keys.
func (s *issuer) fetch(ctx context.Context) (*keySet, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	location := s.spec.JWKSURL
	if location == "" {
		var err error
		if location, err = s.discover(ctx); err != nil {
			return nil, err
		}
	}
	raw, err := s.get(ctx, location)
	if err != nil {
		return nil, err
	}
	now := s.now()
	before := s.keys.Load()
	set, err := parseKeys(raw, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", location, err)
	}
	if before != nil && bytes.Equal(before.raw, raw) {
		set.verified = before.verified
	} else {
		s.log.Info("issuer has new keys", "issuer", s.spec.Name, "keys", len(set.keys))
	}
	return set, nil
}

// keep writes the keys down for a restart.
func (s *issuer) keep(set *keySet) {
	if err := s.save(set); err != nil {
		s.log.Warn("keys of an issuer could not be kept: they will be missing after a restart without network", "issuer", s.spec.Name, "error", err.Error())
	}
}

// discover asks the issuer where its keys are (OpenID Connect Discovery 1.0, 4).
func (s *issuer) discover(ctx context.Context) (string, error) {
	at := strings.TrimSuffix(s.spec.URL, "/") + "/.well-known/openid-configuration"
	raw, err := s.get(ctx, at)
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(raw, &document); err != nil {
		return "", fmt.Errorf("%s: %w", at, err)
	}
	if document.Issuer != s.spec.URL {
		return "", fmt.Errorf("%s: is of the issuer %q, not %q", at, document.Issuer, s.spec.URL)
	}
	u, err := url.Parse(document.JWKSURI)
	if err != nil {
		return "", fmt.Errorf("%s: jwks_uri: %w", at, err)
	}
	if err := secure(u); err != nil {
		return "", fmt.Errorf("%s: jwks_uri: %w", at, err)
	}
	return document.JWKSURI, nil
}

func (s *issuer) get(ctx context.Context, at string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", at, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxDocumentBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	if len(data) > maxDocumentBytes {
		return nil, fmt.Errorf("%s answered more than %d bytes", at, maxDocumentBytes)
	}
	return data, nil
}

// parseKeys reads the public keys of a JWK set that may check signatures. What it cannot use it passes over: a secret key, which
// an HMAC would take, among it.
func parseKeys(raw []byte, fetched time.Time) (*keySet, error) {
	set, err := jwk.Parse(raw, jwk.WithIgnoreParseError(true))
	if err != nil {
		return nil, fmt.Errorf("is no JWK set: %w", err)
	}
	ks := &keySet{raw: raw, fetched: fetched, verified: newCache(cacheSize)}
	for n := range set.Len() {
		k, _ := set.Key(n)
		if use := k.KeyUsage(); use != "" && use != "sig" {
			continue
		}
		public, err := k.PublicKey()
		if err != nil {
			continue
		}
		var key any
		if err := public.Raw(&key); err != nil {
			continue
		}
		switch key := key.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() < minRSABits {
				continue
			}
		case *ecdsa.PublicKey, ed25519.PublicKey:
		default:
			continue
		}
		ks.keys = append(ks.keys, publicKey{id: k.KeyID(), algorithm: k.Algorithm().String(), key: key})
	}
	if len(ks.keys) == 0 {
		return nil, errors.New("has no public key that may check signatures")
	}
	return ks, nil
}

// usable says whether the keys may still be used.
func (ks *keySet) usable(spec *gateway.Issuer, now time.Time) bool {
	return ks != nil && now.Sub(ks.fetched) <= spec.Grace
}

// find returns the key of a token's header; one without kid is taken where there is only one key.
func (ks *keySet) find(id, algorithm string) any {
	var found any
	for _, k := range ks.keys {
		if id != "" && k.id != id || k.algorithm != "" && k.algorithm != algorithm || !fits(k.key, algorithm) {
			continue
		}
		if found != nil && id == "" {
			return nil
		}
		found = k.key
	}
	return found
}

// fits says whether a key may be used with an algorithm.
func fits(key any, algorithm string) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		// An algorithm belongs to one curve (RFC 7518, 3.4).
		return map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[algorithm] == key.Curve.Params().BitSize
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// kept is the file with an issuer's keys.
type kept struct {
	Issuer  string          `json:"issuer"`
	JWKSURL string          `json:"jwks_url,omitempty"`
	Fetched time.Time       `json:"fetched"`
	Keys    json.RawMessage `json:"jwks"`
}

func (s *issuer) save(ks *keySet) error {
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		return fmt.Errorf("folder of keys: %w", err)
	}
	return statefile.IssuerKeys().Write(s.file, kept{Issuer: s.spec.URL, JWKSURL: s.spec.JWKSURL, Fetched: ks.fetched.UTC(), Keys: ks.raw}, 0o600)
}

// load takes the keys on disk; none is no error.
func (s *issuer) load() error {
	var k kept
	if err := statefile.IssuerKeys().Read(s.file, &k); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	if k.Issuer != s.spec.URL || k.JWKSURL != s.spec.JWKSURL {
		return errors.New("is of another issuer")
	}
	ks, err := parseKeys(k.Keys, k.Fetched)
	if err != nil {
		return err
	}
	s.keys.Store(ks)
	return nil
}

var fetches = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "esb_issuer_key_fetches_total",
	Help: "Fetches of the keys of OpenID Connect issuers, by issuer and result: ok or error.",
}, []string{"issuer", "result"})
