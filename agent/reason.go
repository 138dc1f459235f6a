package agent

import "errors"

// Reason is the kind of cause for which no container could be started. Clients of the Invoke API may learn of it by the gateway,
// which has the same words: they name nothing of the box.
type Reason string

// Reasons that stay until somebody changes something.
const (
	ReasonImageMissing   Reason = "image_missing"
	ReasonImageInvalid   Reason = "image_invalid"
	ReasonRuntimeInvalid Reason = "runtime_invalid"
	ReasonCodeMissing    Reason = "code_missing"
	ReasonCodeInvalid    Reason = "code_invalid"
	ReasonConfiguration  Reason = "configuration"
)

// Reasons that pass by themselves.
const (
	ReasonAgentAway    Reason = "agent_away"
	ReasonRegistryAway Reason = "registry_away"
	ReasonStoreAway    Reason = "store_away"
	ReasonCodeChanging Reason = "code_changing"
	ReasonExhausted    Reason = "exhausted"
	ReasonSlow         Reason = "slow"
)

// Because gives an error its reason, unless one that it wraps has one: whoever is nearest to the cause knows best. It keeps code
// and message.
func Because(reason Reason, err error) error {
	if err == nil || reason == "" || ErrorReason(err) != "" {
		return err
	}
	return &Error{Code: ErrorCode(err), Message: err.Error(), Reason: reason, cause: err}
}

// ErrorReason returns the first reason in err's chain, "" when there is none.
func ErrorReason(err error) Reason {
	var e *Error
	for errors.As(err, &e) {
		if e.Reason != "" {
			return e.Reason
		}
		err, e = e.cause, nil
	}
	return ""
}
