package sigv4

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const (
	chunkAlgorithm   = "AWS4-HMAC-SHA256-PAYLOAD"
	trailerAlgorithm = "AWS4-HMAC-SHA256-TRAILER"
	trailerSignature = "x-amz-trailer-signature"
	chunkSignature   = "chunk-signature="
	// maxChunkLine bounds a line between the data, in bytes, maxTrailers how many of them may follow it.
	maxChunkLine, maxTrailers = 8 << 10, 16
)

// ErrChunks is a body that is not made of chunks as it should be (S3: IncompleteBody).
var ErrChunks = errors.New("the request body is not made of signed chunks as its headers say")

// Chunked reads the data of a body that is signed chunk by chunk (StreamingPayload, StreamingPayloadTrailer). It holds no
// more than a buffer, and holds the last byte of the data back until the last signature was found right: whoever has read
// as many bytes as were announced has data that was signed. Source: S3 API reference, "Signature calculations: transferring
// payload in multiple chunks".
type Chunked struct {
	src *bufio.Reader
	key []byte
	// date and scope are as they are signed; previous is the signature before, want that of the chunk that is being read.
	date, scope, previous, want string
	sum                         hash.Hash
	// left is what is still to come of the chunk, length what is still to come of all.
	left, length int64
	held         []byte
	trailers     bool
	trailer      http.Header
	err          error
}

// Decode returns the data of a body of r, whose signature is s, when it is signed chunk by chunk. length is how much it has
// to be (X-Amz-Decoded-Content-Length). Reading it ends in an *Error, ErrChunks or an error of body when it is not.
func (v *Verifier) Decode(s Signature, body io.Reader, length int64) *Chunked {
	secret, _ := v.keys(s.AccessKeyID) // known, because s is right
	return &Chunked{
		src: bufio.NewReaderSize(body, 16<<10), key: s.Scope.Key(secret),
		date: s.Date.Format(timeFormat), scope: s.Scope.String(), previous: s.Hex,
		sum: sha256.New(), length: length, trailers: s.Payload == StreamingPayloadTrailer,
	}
}

// Trailer returns the signed trailers, when all has been read.
func (c *Chunked) Trailer() http.Header { return c.trailer }

// Read implements io.Reader.
func (c *Chunked) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for c.err == nil {
		if c.left == 0 {
			size, err := c.header()
			switch {
			case err != nil:
				c.err = err
			case size == 0:
				if c.err = c.end(); c.err == nil {
					c.err = io.EOF
				}
			default:
				c.left = size
			}
			if (c.err == nil || errors.Is(c.err, io.EOF)) && len(c.held) > 0 {
				p[0], c.held = c.held[0], c.held[:0]
				return 1, nil
			}
			continue
		}
		if c.left == 1 {
			c.err = c.last()
			continue
		}
		n, err := c.src.Read(p[:min(int64(len(p)), c.left-1)])
		c.sum.Write(p[:n])
		c.left -= int64(n)
		if err != nil {
			c.err = broken(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, c.err
}

// header reads "<hex size>;chunk-signature=<hex>".
func (c *Chunked) header() (int64, error) {
	line, err := c.line()
	if err != nil {
		return 0, err
	}
	sizeText, rest, _ := strings.Cut(line, ";")
	size, err := strconv.ParseInt(sizeText, 16, 63)
	signature, ok := strings.CutPrefix(rest, chunkSignature)
	if err != nil || size < 0 || sizeText[0] == '+' || !ok {
		return 0, ErrChunks
	}
	if c.length -= size; c.length < 0 || size == 0 && c.length != 0 {
		return 0, ErrChunks
	}
	c.want = signature
	return size, nil
}

// last reads the last byte of a chunk and checks it.
func (c *Chunked) last() error {
	b, err := c.src.ReadByte()
	if err != nil {
		return broken(err)
	}
	c.held = append(c.held[:0], b)
	c.sum.Write(c.held)
	c.left = 0
	if line, err := c.line(); err != nil || line != "" {
		return cmpErr(err, ErrChunks)
	}
	return c.check()
}

// check compares the signature of the chunk that was read.
func (c *Chunked) check() error {
	data := hex.EncodeToString(c.sum.Sum(nil))
	c.sum.Reset()
	return c.compare(c.want, chunkAlgorithm+"\n"+c.date+"\n"+c.scope+"\n"+c.previous+"\n"+HashPayload(nil)+"\n"+data)
}

func (c *Chunked) compare(given, text string) error {
	want := hex.EncodeToString(mac(c.key, text))
	if subtle.ConstantTimeCompare([]byte(want), []byte(given)) != 1 {
		return mismatch("The chunk signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.")
	}
	c.previous = given
	return nil
}

// end checks the last, empty chunk and reads what follows it.
func (c *Chunked) end() error {
	if err := c.check(); err != nil {
		return err
	}
	c.trailer = make(http.Header)
	var text strings.Builder
	signature := ""
	for range maxTrailers {
		line, err := c.line()
		if errors.Is(err, ErrChunks) && line == "" && !c.trailers {
			return nil // without the last line break
		}
		if err != nil {
			return err
		}
		if line == "" {
			switch _, err := c.src.ReadByte(); {
			case err == nil:
				return ErrChunks
			case !errors.Is(err, io.EOF):
				return err
			case !c.trailers && signature == "" && len(c.trailer) == 0:
				return nil
			case !c.trailers:
				return ErrChunks
			}
			return c.compare(signature, trailerAlgorithm+"\n"+c.date+"\n"+c.scope+"\n"+c.previous+"\n"+HashPayload([]byte(text.String())))
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || !validName(name) || signature != "":
			return ErrChunks
		case name == trailerSignature:
			signature = value
		default:
			fmt.Fprintf(&text, "%s:%s\n", name, value)
			c.trailer.Add(name, value)
		}
	}
	return ErrChunks
}

// line reads up to a line break.
func (c *Chunked) line() (string, error) {
	line, err := c.src.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF) {
			return "", ErrChunks
		}
		return "", err
	}
	if len(line) > maxChunkLine {
		return "", ErrChunks
	}
	return strings.TrimSuffix(string(line[:len(line)-1]), "\r"), nil
}

func broken(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrChunks
	}
	return err
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
