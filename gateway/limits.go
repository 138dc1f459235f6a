package gateway

// AWS: Lambda quotas, invocation payload.
const (
	// MaxEvent is the largest event of an invocation that is waited for, in bytes (AWS: 6 MB).
	MaxEvent = 6 << 20
	// MaxAsyncEvent is the largest event of an asynchronous invocation, in bytes (AWS: 1 MB since 2025-10).
	MaxAsyncEvent = 1 << 20
)
