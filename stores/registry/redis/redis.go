// Package redis stands in for github.com/redis/go-redis/v9 when the registry is compiled (the replace line of ../go.mod): distribution's
// handlers can keep descriptions of blobs in Redis, which the box does not have, and its client is two thirds of what there would be to
// compile. It has what distribution names of it; whatever is asked of it fails.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"time"
)

// Nil says that there is no such key.
const Nil = none("redis: nil")

type none string

// Error implements error.
func (n none) Error() string { return string(n) }

var errNoRedis = errors.New("this registry has no Redis: leave it out of its configuration")

// Answer is what a command answers: nothing but an error.
type Answer[T any] struct{}

// Err returns the error.
func (*Answer[T]) Err() error { return errNoRedis }

// Result returns the error.
func (*Answer[T]) Result() (T, error) {
	var zero T
	return zero, errNoRedis
}

// PoolStats are figures of connections.
type PoolStats struct{ TotalConns, IdleConns uint32 }

// Conn is a connection.
type Conn struct{}

// Ping fails.
func (*Conn) Ping(context.Context) *Answer[string] { return nil }

// UniversalOptions are the settings of a client.
type UniversalOptions struct {
	Addrs                              []string
	ClientName                         string
	DB, Protocol                       int
	Username, Password                 string
	SentinelUsername, SentinelPassword string
	MaxRetries                         int
	MinRetryBackoff, MaxRetryBackoff   time.Duration
	DialTimeout                        time.Duration
	ReadTimeout, WriteTimeout          time.Duration
	ContextTimeoutEnabled, PoolFIFO    bool
	PoolSize                           int
	PoolTimeout                        time.Duration
	MinIdleConns, MaxIdleConns         int
	MaxActiveConns                     int
	ConnMaxIdleTime, ConnMaxLifetime   time.Duration
	MaxRedirects                       int
	ReadOnly                           bool
	RouteByLatency, RouteRandomly      bool
	MasterName                         string
	DisableIdentity                    bool
	IdentitySuffix                     string
	UnstableResp3                      bool
	TLSConfig                          *tls.Config
	OnConnect                          func(ctx context.Context, cn *Conn) error
}

// UniversalClient is a client.
type UniversalClient interface {
	Pipeliner
	HGet(ctx context.Context, key, field string) *Answer[string]
	HMGet(ctx context.Context, key string, fields ...string) *Answer[[]any]
	HMSet(ctx context.Context, key string, values ...any) *Answer[bool]
	HSet(ctx context.Context, key string, values ...any) *Answer[int64]
	HSetNX(ctx context.Context, key, field string, value any) *Answer[bool]
	SAdd(ctx context.Context, key string, members ...any) *Answer[int64]
	SIsMember(ctx context.Context, key string, member any) *Answer[bool]
	TxPipeline() Pipeliner
	PoolStats() *PoolStats
}

// Pipeliner collects commands.
type Pipeliner interface {
	Del(ctx context.Context, keys ...string) *Answer[int64]
	HDel(ctx context.Context, key string, fields ...string) *Answer[int64]
	SRem(ctx context.Context, key string, members ...any) *Answer[int64]
	Exec(ctx context.Context) ([]any, error)
}

// NewUniversalClient returns a client whose commands fail.
func NewUniversalClient(*UniversalOptions) UniversalClient { return absent{} }

type absent struct{}

func (absent) Del(context.Context, ...string) *Answer[int64]             { return nil }
func (absent) HDel(context.Context, string, ...string) *Answer[int64]    { return nil }
func (absent) SRem(context.Context, string, ...any) *Answer[int64]       { return nil }
func (absent) Exec(context.Context) ([]any, error)                       { return nil, errNoRedis }
func (absent) HGet(context.Context, string, string) *Answer[string]      { return nil }
func (absent) HMGet(context.Context, string, ...string) *Answer[[]any]   { return nil }
func (absent) HMSet(context.Context, string, ...any) *Answer[bool]       { return nil }
func (absent) HSet(context.Context, string, ...any) *Answer[int64]       { return nil }
func (absent) HSetNX(context.Context, string, string, any) *Answer[bool] { return nil }
func (absent) SAdd(context.Context, string, ...any) *Answer[int64]       { return nil }
func (absent) SIsMember(context.Context, string, any) *Answer[bool]      { return nil }
func (absent) TxPipeline() Pipeliner                                     { return absent{} }
func (absent) PoolStats() *PoolStats                                     { return &PoolStats{} }
