package s3front

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

const (
	continuationToken = "continuation-token"
	// macSize is how many bytes of a token say that it is one.
	macSize = 16
	// maxListHead is in how many bytes versitygw says everything of a list but what is in it: a prefix, a delimiter and keys, 1024
	// bytes each, escaped.
	maxListHead = 64 << 10
)

// errToken is S3's answer to a token that it has not made, an empty one among them.
var errToken = &s3Error{http.StatusBadRequest, "InvalidArgument", "The continuation token provided is incorrect"}

// tokens makes continuation tokens of keys, which can be told from what others make. versitygw (v1.8.0) takes any key for one:
// a client that sends a wrong token would miss objects and not know (versitygw, issue 993).
type tokens struct{ secret []byte }

// newTokens returns the tokens that belong to a secret; they work as long as it is the same.
func newTokens(secret string) tokens {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("esb s3 continuation token"))
	return tokens{mac.Sum(nil)}
}

// seal makes the token with which a list goes on after a key.
func (t tokens) seal(key string) string {
	mac := hmac.New(sha256.New, t.secret)
	mac.Write([]byte(key))
	return base64.RawURLEncoding.EncodeToString(append(mac.Sum(nil)[:macSize], key...))
}

// open returns the key of a token, and whether it is one.
func (t tokens) open(token string) (string, bool) {
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(data) <= macSize {
		return "", false
	}
	key := string(data[macSize:])
	return key, hmac.Equal([]byte(t.seal(key)), []byte(token))
}

// lists says whether a request asks for a list that has continuation tokens: key is the object that it names, and what reads
// one may have any query.
func (h *handler) lists(r *http.Request, key string, query url.Values) bool {
	return h.opts.Ignorant && r.Method == http.MethodGet && key == "" && query.Get("list-type") == "2"
}

// readToken replaces the token of a request by the key that it stands for. Signature and rights have been looked at.
func (h *handler) readToken(r *http.Request, c *checked) error {
	query, _ := url.ParseQuery(r.URL.RawQuery) // it was parsed to check the signature
	_, key := split(r.URL, "")                 // the bucket is in the path by now
	if c.listed = h.lists(r, key, query); !c.listed || !query.Has(continuationToken) {
		return nil
	}
	c.token = query.Get(continuationToken)
	key, ok := h.tokens.open(c.token)
	if !ok {
		return errToken
	}
	query.Set(continuationToken, key)
	// Not every server reads a plus sign as a blank.
	r.URL.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return nil
}

var tokenElement = regexp.MustCompile(`<(?:Next)?ContinuationToken>[^<]*</(?:Next)?ContinuationToken>`)

// withTokens makes tokens of the keys in a list that are meant for some, and tells which one was sent: versitygw (v1.8.0) tells
// start-after there. The rest of the list is passed on as it comes.
func (h *handler) withTokens(r *http.Response, c *checked) error {
	from := bufio.NewReaderSize(r.Body, maxListHead)
	head, err := from.Peek(maxListHead)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	size := bytes.Index(head, []byte("<KeyCount>"))
	if size < 0 {
		return errors.New("the answer to ListObjectsV2 is none")
	}
	var out bytes.Buffer
	out.Write(tokenElement.ReplaceAllLiteral(head[:size], nil))
	if c.token != "" {
		out.WriteString("<ContinuationToken>" + c.token + "</ContinuationToken>")
	}
	for _, element := range tokenElement.FindAll(head[:size], -1) {
		var key string
		if !bytes.HasPrefix(element, []byte("<Next")) {
			continue
		}
		if err := xml.Unmarshal(element, &key); err != nil {
			return err
		}
		out.WriteString("<NextContinuationToken>" + h.tokens.seal(key) + "</NextContinuationToken>")
	}
	if _, err := from.Discard(size); err != nil {
		return err
	}
	if r.ContentLength >= 0 {
		r.ContentLength += int64(out.Len() - size)
		r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	r.Body = body{io.MultiReader(&out, from), r.Body}
	return nil
}
