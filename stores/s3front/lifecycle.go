package s3front

import (
	"errors"
	"io"
	"net/http"

	"github.com/edge-serverless-box/esb/stores/lifecycle"
)

// lifecycle answers for a store that has no lifecycle rules. Only the operator comes here: functions do not configure buckets.
func (h *handler) lifecycle(w http.ResponseWriter, r *http.Request) {
	if err := h.rules(w, r); err != nil {
		var answer *lifecycle.Error
		if errors.As(err, &answer) {
			err = &s3Error{answer.Status, answer.Code, answer.Message}
		}
		h.refuse(w, r, err)
	}
}

func (h *handler) rules(w http.ResponseWriter, r *http.Request) error {
	c := r.Context().Value(contextKey{}).(*checked) // ServeHTTP has put it there
	bucket, _ := split(r.URL, "")
	// The bucket's own setting must not outlive it, nor be there before it.
	ask := asker{h: h, region: c.signature.Scope.Region, host: r.Host}
	there, err := ask.do(r.Context(), http.MethodGet, bucket, "", "location=", http.Header{}, nil, 0)
	if err != nil {
		return err
	}
	defer func() { _ = there.Body.Close() }()
	if there.StatusCode != http.StatusOK {
		return pass(w, there)
	}
	switch r.Method {
	case http.MethodPut:
		body, err := io.ReadAll(io.LimitReader(r.Body, lifecycle.MaxBody+1))
		if err != nil {
			return err
		}
		configuration, err := lifecycle.Parse(body)
		if err != nil {
			return err
		}
		if err := h.opts.Lifecycle.Put(bucket, configuration); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
	case http.MethodGet:
		configuration, ok, err := h.opts.Lifecycle.Get(bucket)
		if err != nil {
			return err
		}
		if !ok {
			return &s3Error{http.StatusNotFound, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"}
		}
		data, err := configuration.Marshal()
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/xml")
		_, _ = w.Write(data) // a client that has gone needs no answer
	case http.MethodDelete:
		if err := h.opts.Lifecycle.Delete(bucket); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		return &s3Error{http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource."}
	}
	return nil
}
