// Package functionkeys makes the AWS credentials of functions from one master secret, so that whoever has the secret
// knows all keys without a list: the gateway, which hands them out, and the stores, which accept them.
package functionkeys

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/sigv4"
)

// Prefix begins the ids of functions' access keys. AWS's ids of temporary keys begin with ASIA, and like those these have
// 20 characters.
const Prefix = "ASIAESB"

const (
	idLength = 20
	// minMaster is the shortest master secret in bytes.
	minMaster = 32
)

// Keys are the keys of all functions of a box.
type Keys struct {
	master []byte
}

// New returns the keys that follow from a master secret of 32 bytes or more.
func New(master []byte) (*Keys, error) {
	if len(master) < minMaster {
		return nil, fmt.Errorf("the functions' master secret must have at least %d bytes, has %d", minMaster, len(master))
	}
	return &Keys{master: bytes.Clone(master)}, nil
}

// Open reads the master secret in a file, and makes the file (mode 0600) when it is not there. Any number of programs
// may do so at once.
func Open(path string) (*Keys, error) {
	master, err := secretfile.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the functions' master secret: %w", err)
	}
	keys, err := New([]byte(master))
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove the file, and a new one is made at the next start", path, err)
	}
	return keys, nil
}

// Of returns the credentials of a function. They are the same for ever.
func (k *Keys) Of(function string) sigv4.Credentials {
	id := k.ID(function)
	secret, _ := k.Secret(id)
	return sigv4.Credentials{
		AccessKeyID: id, SecretAccessKey: secret,
		// Opaque: nothing is checked by it, and SDKs want one with a temporary key.
		SessionToken: base64.StdEncoding.EncodeToString(k.sum("token", id)),
	}
}

// ID returns the id of a function's access key.
func (k *Keys) ID(function string) string {
	return Prefix + base32.StdEncoding.EncodeToString(k.sum("id", function))[:idLength-len(Prefix)]
}

// Secret returns the secret of an access key that has the form of a function's; it is a sigv4.Keys.
func (k *Keys) Secret(accessKeyID string) (secret string, ok bool) {
	if !IsID(accessKeyID) {
		return "", false
	}
	// 30 bytes are 40 characters, as AWS's secrets have.
	return base64.StdEncoding.EncodeToString(k.sum("secret", accessKeyID)[:30]), true
}

// IsID says whether an access key has the form of a function's.
func IsID(accessKeyID string) bool {
	return strings.HasPrefix(accessKeyID, Prefix) && len(accessKeyID) == idLength
}

func (k *Keys) sum(purpose, text string) []byte {
	h := hmac.New(sha256.New, k.master)
	h.Write([]byte(purpose + "\x00" + text))
	return h.Sum(nil)
}
