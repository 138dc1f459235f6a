package s3front

import (
	"net/http"
	"slices"
)

const (
	headerEncryption = "X-Amz-Server-Side-Encryption"
	// ownKeys is S3's word for encryption with keys of its own, which it does with every object, asked or not (S3 user guide,
	// "Setting default server-side encryption behavior").
	ownKeys = "AES256"
)

// encryptionAsked says in the log, once, that what a client has asked for is the disk's to do, where nobody has said that it does.
func (h *handler) encryptionAsked(sse string) {
	if sse == "" || h.opts.EncryptedDisk {
		return
	}
	h.unencrypted.Do(func() {
		h.opts.Logger.Warn("objects are to be encrypted (x-amz-server-side-encryption: AES256), and the store encrypts none: the answers do not say that they are; " +
			"keep ESB_DATA_DIR on an encrypted disk, and say so with S3_ENCRYPTED_DISK=true")
	})
}

// encryption says in the answer to an operation on an object's content that it is encrypted, as S3 does, where it is.
func (h *handler) encryption(r *http.Request, header http.Header) {
	if !h.opts.Ignorant || !h.opts.EncryptedDisk {
		return
	}
	_, key := split(r.URL, "")
	selector := ""
	query := r.URL.Query()
	for _, name := range selectors {
		if query.Has(name) {
			selector = name
		}
	}
	content := []string{"GET ", "HEAD ", "PUT ", "PUT uploadId", "POST uploads", "POST uploadId"}
	if key != "" && slices.Contains(content, r.Method+" "+selector) || key == "" && isForm(r) {
		header.Set(headerEncryption, ownKeys)
	}
}
