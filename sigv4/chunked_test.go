package sigv4

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The examples of the S3 API reference ("Signature calculations ... multiple chunks" and "... including trailing headers"):
// 66 560 times the letter a.
var (
	exampleScope = Scope{Date: "20130524", Region: "us-east-1", Service: "s3"}
	exampleDate  = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	exampleKeys  = OneKey("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
	exampleData  = strings.Repeat("a", 66560)
)

func exampleSignature(payload, seed string) Signature {
	return Signature{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", Scope: exampleScope, Date: exampleDate, Payload: payload, Hex: seed}
}

func exampleChunks(signatures ...string) string {
	return "10000;chunk-signature=" + signatures[0] + "\r\n" + exampleData[:65536] + "\r\n" +
		"400;chunk-signature=" + signatures[1] + "\r\n" + exampleData[65536:] + "\r\n" +
		"0;chunk-signature=" + signatures[2] + "\r\n"
}

func plainExample() (Signature, string) {
	return exampleSignature(StreamingPayload, "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"),
		exampleChunks("ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
			"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
			"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9") + "\r\n"
}

func trailerExample() (Signature, string) {
	return exampleSignature(StreamingPayloadTrailer, "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"),
		exampleChunks("b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
			"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
			"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992") +
			"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
}

func TestDecode_ExamplesOfAWS_AreRight(t *testing.T) {
	verifier := NewVerifier("s3", exampleKeys)
	for name, example := range map[string]func() (Signature, string){"plain": plainExample, "trailer": trailerExample} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			signature, body := example()
			chunks := verifier.Decode(signature, wrap(strings.NewReader(body)), int64(len(exampleData)))
			data, err := io.ReadAll(chunks)
			require.NoError(t, err, "%s, %s", name, how)
			require.Equal(t, exampleData, string(data), "%s, %s", name, how)
			if name == "trailer" {
				assert.Equal(t, http.Header{"X-Amz-Checksum-Crc32c": {"sOO8/Q=="}}, chunks.Trailer())
			}
		}
	}
}

func TestDecode_BodyIsNotWhatWasSigned_NeverGivesAllOfIt(t *testing.T) {
	verifier := NewVerifier("s3", exampleKeys)
	var refused *Error
	for _, c := range []struct {
		name    string
		example func() (Signature, string)
		change  func(string) string
		length  int
		want    any
	}{
		{"data of the first chunk", plainExample, func(s string) string { return strings.Replace(s, "aaaa", "aaba", 1) }, 0, &refused},
		{"data of the last chunk", plainExample, func(s string) string {
			i := strings.LastIndex(s, "aaaa")
			return s[:i] + "aaab" + s[i+4:]
		}, 0, &refused},
		{"signature of the last chunk", plainExample, func(s string) string { return strings.Replace(s, "b6c6ea", "b6c6eb", 1) }, 0, &refused},
		{"cut after the data", plainExample, func(s string) string { return s[:strings.LastIndex(s, "0;chunk")] }, 0, ErrChunks},
		{"cut in the data", plainExample, func(s string) string { return s[:70000-65536/2] }, 0, ErrChunks},
		{"without signatures", plainExample, func(s string) string { return strings.ReplaceAll(s, ";chunk-signature=", ";other=") }, 0, ErrChunks},
		{"more than announced", plainExample, nil, len(exampleData) - 1, ErrChunks},
		{"less than announced", plainExample, nil, len(exampleData) + 1, ErrChunks},
		{"more after the end", plainExample, func(s string) string { return s + "x" }, 0, ErrChunks},
		{"trailer", trailerExample, func(s string) string { return strings.Replace(s, "sOO8", "sOO9", 1) }, 0, &refused},
		{"another trailer", trailerExample, func(s string) string {
			return strings.Replace(s, "x-amz-checksum", "x-amz-meta:1\r\nx-amz-checksum", 1)
		}, 0, &refused},
		{"trailer without signature", trailerExample, func(s string) string {
			before, _, _ := strings.Cut(s, trailerSignature)
			return before + "\r\n"
		}, 0, &refused},
		{"trailer where none may be", func() (Signature, string) {
			s, body := plainExample()
			return s, strings.TrimSuffix(body, "\r\n") + "x-amz-meta:1\r\n\r\n"
		}, nil, 0, ErrChunks},
		{"negative size", plainExample, func(s string) string { return strings.Replace(s, "10000;", "-1;", 1) }, 0, ErrChunks},
		{"endless line", plainExample, func(string) string { return strings.Repeat("1", 1<<20) }, 0, ErrChunks},
	} {
		t.Run(c.name, func(t *testing.T) {
			signature, body := c.example()
			if c.change != nil {
				body = c.change(body)
			}
			length := c.length
			if length == 0 {
				length = len(exampleData)
			}
			data, err := io.ReadAll(verifier.Decode(signature, strings.NewReader(body), int64(length)))
			require.Error(t, err)
			assert.Less(t, len(data), length, "a store that gets all that was announced takes it")
			if want, ok := c.want.(error); ok {
				require.ErrorIs(t, err, want)
			} else {
				require.ErrorAs(t, err, c.want)
			}
		})
	}
}

func TestDecode_NoData_IsRight(t *testing.T) {
	key := exampleScope.Key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
	signature := exampleSignature(StreamingPayload, "seed")
	c := &Chunked{key: key}
	text := chunkAlgorithm + "\n20130524T000000Z\n" + exampleScope.String() + "\nseed\n" + HashPayload(nil) + "\n" + HashPayload(nil)
	last := fmt.Sprintf("%x", mac(c.key, text))
	for _, body := range []string{"0;chunk-signature=" + last + "\r\n\r\n", "0;chunk-signature=" + last + "\r\n"} {
		data, err := io.ReadAll(NewVerifier("s3", exampleKeys).Decode(signature, strings.NewReader(body), 0))
		require.NoError(t, err)
		assert.Empty(t, data)
	}
}

func TestResign_IsRightForTheOtherKey(t *testing.T) {
	now := time.Now()
	from := Credentials{AccessKeyID: "FROM", SecretAccessKey: "s1", SessionToken: "token"}
	to := Credentials{AccessKeyID: "TO", SecretAccessKey: "s2"}
	first, second := NewVerifier("s3", OneKey("FROM", "s1")), NewVerifier("s3", OneKey("TO", "s2"))

	r := httptest.NewRequest(http.MethodPut, "/b/k%20x?versionId=1", nil)
	r.Header.Set("X-Amz-Meta-A", "b")
	Sign(r, from, "eu-west-1", "s3", UnsignedPayload, now)
	signature, err := first.VerifyHead(r)
	require.NoError(t, err)
	Resign(r, signature, to, UnsignedPayload, now)
	got, err := second.VerifyHead(r)
	require.NoError(t, err)
	assert.Empty(t, got.SessionToken)
	assert.Contains(t, got.Headers, "x-amz-meta-a")

	// Presigned: as the SDK makes it is checked in sigv4_test.go; here by Resign itself, from a template.
	date := now.UTC().Format(timeFormat)
	presigned := httptest.NewRequest(http.MethodGet, "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=X&X-Amz-Date="+date+
		"&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=0&x-id=GetObject", nil)
	template := Signature{Presigned: true, Scope: Scope{Date: date[:8], Region: "eu-west-1", Service: "s3"}, Date: now.Truncate(time.Second).UTC(), Headers: []string{"host"}}
	Resign(presigned, template, from, UnsignedPayload, now)
	signature, err = first.VerifyHead(presigned)
	require.NoError(t, err)
	assert.Equal(t, "token", signature.SessionToken)
	Resign(presigned, signature, to, UnsignedPayload, now)
	got, err = second.VerifyHead(presigned)
	require.NoError(t, err)
	assert.Empty(t, got.SessionToken)
	assert.Equal(t, signature.Date, got.Date)
}

const smallData = "some data"

// smallBodies are signed bodies of smallData, without and with a trailer.
func smallBodies() (plain, trailer string) {
	key := exampleScope.Key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
	previous := "seed"
	next := func(algorithm string, rest ...string) string {
		text := append([]string{algorithm, "20130524T000000Z", exampleScope.String(), previous}, rest...)
		previous = hex.EncodeToString(mac(key, strings.Join(text, "\n")))
		return previous
	}
	none := HashPayload(nil)
	chunks := fmt.Sprintf("9;chunk-signature=%s\r\n%s\r\n", next(chunkAlgorithm, none, HashPayload([]byte(smallData))), smallData)
	chunks += "0;chunk-signature=" + next(chunkAlgorithm, none, none) + "\r\n"
	signature := next(trailerAlgorithm, HashPayload([]byte("x-amz-a:b\n")))
	return chunks + "\r\n", chunks + "x-amz-a:b\r\n" + trailerSignature + ":" + signature + "\r\n\r\n"
}

func TestDecode_SmallBodies_AreRight(t *testing.T) {
	plain, trailer := smallBodies()
	for payload, body := range map[string]string{StreamingPayload: plain, StreamingPayloadTrailer: trailer} {
		got, err := io.ReadAll(NewVerifier("s3", exampleKeys).Decode(exampleSignature(payload, "seed"), strings.NewReader(body), int64(len(smallData))))
		require.NoError(t, err, payload)
		assert.Equal(t, smallData, string(got), payload)
	}
}

func FuzzDecode(f *testing.F) {
	plain, trailer := smallBodies()
	f.Add(plain, StreamingPayload)
	f.Add(trailer, StreamingPayloadTrailer)
	f.Add("0;chunk-signature=\r\n\r\n", StreamingPayload)
	verifier := NewVerifier("s3", exampleKeys)
	f.Fuzz(func(t *testing.T, body, payload string) {
		got, err := io.ReadAll(verifier.Decode(exampleSignature(payload, "seed"), strings.NewReader(body), int64(len(smallData))))
		if err == nil && string(got) != smallData {
			t.Fatal("data that nobody has signed was found right")
		}
		var refused *Error
		if err != nil && !errors.Is(err, ErrChunks) && !errors.As(err, &refused) {
			t.Fatalf("%v", err)
		}
	})
}
