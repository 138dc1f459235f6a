package s3front

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/sigv4"
)

const (
	headerDecodedLength = "X-Amz-Decoded-Content-Length"
	headerTrailer       = "X-Amz-Trailer"
	// chunkSize is that of the chunks that the store gets.
	chunkSize = 64 << 10
)

// errUnsupported is what the front cannot pass on.
var errUnsupported = errors.New("not supported")

// checksumLength is how many characters the base64 of a checksum has (S3 user guide, "Checking object integrity").
var checksumLength = map[string]int{
	"x-amz-checksum-crc32": 8, "x-amz-checksum-crc32c": 8, "x-amz-checksum-crc64nvme": 12, "x-amz-checksum-sha1": 28, "x-amz-checksum-sha256": 44,
}

// decode replaces a body of signed chunks by its data, or, when a checksum follows it that the store has to see, by chunks
// without signatures. It returns the payload to sign.
func (h *handler) decode(r *http.Request, signature sigv4.Signature) (string, error) {
	length, err := strconv.ParseInt(r.Header.Get(headerDecodedLength), 10, 64)
	if err != nil || length < 0 {
		return "", &s3Error{http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header."}
	}
	chunks := h.verifier.Decode(signature, r.Body, length)
	r.TransferEncoding = nil
	if length == 0 && signature.Payload == sigv4.StreamingPayload {
		// Nobody reads a body without data.
		if _, err := io.Copy(io.Discard, chunks); err != nil {
			return "", err
		}
	}
	if signature.Payload == sigv4.StreamingPayload {
		r.Header.Del(headerDecodedLength)
		withoutChunked(r.Header)
		r.ContentLength = length
		r.Header.Set("Content-Length", strconv.FormatInt(length, 10))
		r.Body = body{io.Reader(chunks), r.Body}
		return sigv4.UnsignedPayload, nil
	}
	trailer := strings.ToLower(strings.TrimSpace(r.Header.Get(headerTrailer)))
	size, ok := checksumLength[trailer]
	if !ok {
		return "", fmt.Errorf("trailer %q: %w", trailer, errUnsupported)
	}
	e := &encoder{from: chunks, left: length, trailer: trailer, size: size}
	r.ContentLength = e.length(length)
	r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	r.Body = body{e, r.Body}
	return sigv4.StreamingUnsignedTrailer, nil
}

// withoutChunked takes aws-chunked out of Content-Encoding, which says how the object is encoded.
func withoutChunked(header http.Header) {
	var left []string
	for _, value := range header.Values("Content-Encoding") {
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" && !strings.EqualFold(part, "aws-chunked") {
				left = append(left, part)
			}
		}
	}
	header.Del("Content-Encoding")
	if len(left) > 0 {
		header.Set("Content-Encoding", strings.Join(left, ","))
	}
}

// body reads from one and closes another.
type body struct {
	io.Reader
	io.Closer
}

// encoder makes a body in chunks without signatures, with a checksum at the end.
type encoder struct {
	from    *sigv4.Chunked
	left    int64
	trailer string
	size    int // of the checksum
	buffer  []byte
	// out is what of buffer was not read yet.
	out []byte
	err error
}

// length returns how long the body gets for some data.
func (e *encoder) length(data int64) int64 {
	frame := func(size int64) int64 { return int64(len(strconv.FormatInt(size, 16))) + 2 + size + 2 }
	total := data / chunkSize * frame(chunkSize)
	if rest := data % chunkSize; rest > 0 {
		total += frame(rest)
	}
	return total + int64(len("0\r\n")+len(e.trailer)+len(":")+e.size+len("\r\n\r\n"))
}

// Read implements io.Reader.
func (e *encoder) Read(p []byte) (int, error) {
	if len(e.out) == 0 && e.err == nil {
		e.err = e.fill()
	}
	if len(e.out) == 0 {
		return 0, e.err
	}
	n := copy(p, e.out)
	e.out = e.out[n:]
	return n, nil
}

// fill makes the next chunk, or the end, which it gives together with io.EOF.
func (e *encoder) fill() error {
	e.buffer = e.buffer[:0]
	if e.left > 0 {
		size := int(min(e.left, chunkSize))
		e.buffer = strconv.AppendInt(e.buffer, int64(size), 16)
		e.buffer = append(e.buffer, "\r\n"...)
		start := len(e.buffer)
		if cap(e.buffer) < start+size+2 {
			e.buffer = append(make([]byte, 0, start+size+2), e.buffer...)
		}
		e.buffer = e.buffer[:start+size]
		if _, err := io.ReadFull(e.from, e.buffer[start:]); err != nil {
			return err
		}
		e.buffer = append(e.buffer, "\r\n"...)
		e.left -= int64(size)
		e.out = e.buffer
		return nil
	}
	// All signatures are right only when the data has ended.
	if n, err := io.Copy(io.Discard, e.from); err != nil || n > 0 {
		return cmp.Or(err, sigv4.ErrChunks)
	}
	value := e.from.Trailer().Get(e.trailer)
	if len(value) != e.size || len(e.from.Trailer()) != 1 {
		return sigv4.ErrChunks
	}
	e.buffer = fmt.Appendf(e.buffer, "0\r\n%s:%s\r\n\r\n", e.trailer, value)
	e.out = e.buffer
	return io.EOF
}
