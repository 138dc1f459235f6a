package lambdainit

import (
	"errors"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// keptBuffer is the largest buffer that is used again, in bytes. lambda-init lives in the function's memory: what a large event
// took would be missing there for good.
const keptBuffer = 256 << 10

// bufferPool holds the bodies of events and results. Whoever takes a buffer gives it back, and only when nobody else
// can still read or write it; else it is left to the garbage collector.
type bufferPool struct {
	pool sync.Pool
	// dropped says that large ones were not kept: their memory is still this process's.
	dropped atomic.Bool
}

var buffers = bufferPool{pool: sync.Pool{New: func() any { return new([]byte) }}}

func (p *bufferPool) get() *[]byte { return p.pool.Get().(*[]byte) }

func (p *bufferPool) put(b *[]byte) {
	if cap(*b) <= keptBuffer {
		p.pool.Put(b)
		return
	}
	*b = nil
	p.dropped.Store(true)
}

// release gives the memory of large buffers back to the kernel, which an idle process would not do for minutes: nothing is
// allocated, and nothing collected.
func (p *bufferPool) release() {
	if p.dropped.Swap(false) {
		debug.FreeOSMemory()
	}
}

var errBodyTooLarge = errors.New("body too large")

// readBody reads a body of at most limit bytes into a buffer of buffers; length is its declared length or -1.
func readBody(body io.Reader, length int64, limit int) (*[]byte, error) {
	if length > int64(limit) {
		return nil, errBodyTooLarge
	}
	buf := buffers.get()
	b := (*buf)[:0]
	if length >= 0 {
		if int64(cap(b)) < length {
			b = make([]byte, length)
		}
		b = b[:length]
		_, err := io.ReadFull(body, b)
		*buf = b
		if err != nil {
			buffers.put(buf)
			return nil, err
		}
		return buf, nil
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := body.Read(b[len(b):min(cap(b), limit+1)])
		b = b[:len(b)+n]
		*buf = b
		switch {
		case len(b) > limit:
			err = errBodyTooLarge
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			return buf, nil
		}
		buffers.put(buf)
		return nil, err
	}
}
