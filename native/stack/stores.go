package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/guard/logfile"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/settings"
)

// patience is how long a store may say that it cannot be started until `up` goes on without it: its program tries again.
const patience = 3 * time.Second

// missingError says which of the stores do not work, while at least one does.
type missingError struct {
	reasons []string
	// refused: the stores' program says so itself; it does not merely take its time.
	refused bool
}

func (e *missingError) Error() string { return strings.Join(e.reasons, "; ") }

// storesReady asks the stores whether they work. A *missingError is one that says that some do.
func (s *Stack) storesReady(ctx context.Context) error {
	list := s.settings.Stores()
	refused, errs := make([]bool, len(list)), make([]error, len(list))
	var asking sync.WaitGroup
	for i, store := range list {
		asking.Go(func() { refused[i], errs[i] = storeReady(ctx, store) })
	}
	asking.Wait()
	missing := &missingError{refused: true}
	for i, store := range list {
		if errs[i] == nil {
			continue
		}
		missing.refused = missing.refused && refused[i]
		if refused[i] {
			errs[i] = s.storeFails(store)
		}
		missing.reasons = append(missing.reasons, errs[i].Error())
	}
	switch len(missing.reasons) {
	case 0:
		return nil
	case len(list):
		return errors.Join(errs...)
	}
	return missing
}

// storeReady asks one store. It is refused when the store's front answers, and says that the store does not.
func storeReady(ctx context.Context, store settings.Store) (refused bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, store.Health, nil)
	if err != nil {
		return false, fmt.Errorf("ask %s: %w", store.Health, err)
	}
	status, body, err := answerOf(req, "the store "+store.Name)
	if err != nil || status == http.StatusOK {
		return false, err
	}
	return true, notOK(req, status, body)
}

// storeFails says what there is to know of a store that cannot be started.
func (s *Stack) storeFails(store settings.Store) error {
	log := filepath.Join(s.settings.ServiceLogDir(native.Stores), "store-"+store.Name+".log")
	said := strings.Split(strings.TrimSpace(logfile.Tail(log, 0, tailSize)), "\n")
	return fmt.Errorf("the store %s does not work and is started again and again: restore its data, %s, from a backup, or move them away "+
		"and it begins anew (%s ends with: %s)", store.Name, filepath.Join(s.settings.DataDir, store.Name), log, said[len(said)-1])
}
