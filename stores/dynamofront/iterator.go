package dynamofront

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
)

// An iterator of a stream does not say of which table it is in a way that could be relied on: dynoxide's are JSON that anybody can
// write. So a function gets one that names the table, signed by the front, and only such ones work for functions.

// iterators signs them with a secret that only the front has.
type iterators struct{ secret string }

func (i iterators) sign(table, iterator string) string {
	h := hmac.New(sha256.New, []byte("stream iterator\x00"+i.secret))
	h.Write([]byte(table + "\x00" + iterator))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// wrap returns what a function gets for an iterator of the store.
func (i iterators) wrap(table, iterator string) string {
	return table + "|" + i.sign(table, iterator) + "|" + iterator
}

// unwrap returns the table and the iterator of the store, false for one that the front did not make.
func (i iterators) unwrap(wrapped string) (table, iterator string, ok bool) {
	table, rest, ok := strings.Cut(wrapped, "|")
	signature, iterator, ok2 := strings.Cut(rest, "|")
	return table, iterator, ok && ok2 && hmac.Equal([]byte(signature), []byte(i.sign(table, iterator)))
}

// wrapAnswer replaces the iterator in an answer to GetShardIterator or GetRecords.
func (i iterators) wrapAnswer(body []byte, table string) []byte {
	if !json.Valid(body) {
		return body
	}
	e := &editor{body: body[:len(body):len(body)]}
	err := members(e.body, func(member string, value []byte) error {
		if member == "ShardIterator" || member == "NextShardIterator" {
			if iterator, err := text(value); err == nil && iterator != "" {
				e.replace(value, i.wrap(table, iterator))
			}
		}
		return nil
	})
	if err != nil {
		return body
	}
	return e.apply()
}
