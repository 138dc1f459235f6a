package gateway

// Reason is the kind of cause for which no container of a function could be started, for a CodeUnavailable. Clients of the
// Invoke API may know it: it names nothing of the box.
type Reason string

// Reasons that stay until somebody changes something: Error.Permanent is set beside them.
const (
	// ReasonImageMissing: neither an archive nor a registry has the function's image, or the registry refuses to give it.
	ReasonImageMissing Reason = "image_missing"
	// ReasonImageInvalid: there is one, but it is no image, is too large, or its program cannot run.
	ReasonImageInvalid Reason = "image_invalid"
	// ReasonRuntimeInvalid: the box has no base image for the function's runtime.
	ReasonRuntimeInvalid Reason = "runtime_invalid"
	// ReasonCodeMissing: there is no object, file or folder where the function's code or a layer should be, or it may not be read.
	ReasonCodeMissing Reason = "code_missing"
	// ReasonCodeInvalid: there is one, but it is no zip file, is too large, or has in it what is not allowed.
	ReasonCodeInvalid Reason = "code_invalid"
	// ReasonConfiguration: the agent refuses what it is asked for.
	ReasonConfiguration Reason = "configuration"
)

// Reasons that pass by themselves: trying again is right.
const (
	// ReasonAgentAway: the agent, or its container runtime, does not answer.
	ReasonAgentAway Reason = "agent_away"
	// ReasonRegistryAway: the image's registry cannot be reached.
	ReasonRegistryAway Reason = "registry_away"
	// ReasonStoreAway: the store that holds the code cannot be reached.
	ReasonStoreAway Reason = "store_away"
	// ReasonCodeChanging: the code changes just now.
	ReasonCodeChanging Reason = "code_changing"
	// ReasonExhausted: the box has no memory, address or process left for another container.
	ReasonExhausted Reason = "exhausted"
	// ReasonSlow: the container was not ready in time.
	ReasonSlow Reason = "slow"
)

// Permanent says whether trying again without a change is useless.
func (r Reason) Permanent() bool {
	switch r {
	case ReasonImageMissing, ReasonImageInvalid, ReasonRuntimeInvalid, ReasonCodeMissing, ReasonCodeInvalid, ReasonConfiguration:
		return true
	}
	return false
}

// Text is a sentence for clients, empty for a reason that is not known.
func (r Reason) Text() string {
	switch r {
	case ReasonImageMissing:
		return "The function's image cannot be had: it is missing, or access to it is refused."
	case ReasonImageInvalid:
		return "The function's image is not valid, or its entrypoint cannot run."
	case ReasonRuntimeInvalid:
		return "The function's runtime is not available."
	case ReasonCodeMissing:
		return "The function's code, or one of its layers, is missing, or access to it is refused."
	case ReasonCodeInvalid:
		return "The function's code, or one of its layers, could not be unzipped, is too large, or holds what is not allowed."
	case ReasonConfiguration:
		return "The function's configuration is not valid."
	case ReasonAgentAway:
		return "The service that runs functions does not answer."
	case ReasonRegistryAway:
		return "The registry of the function's image cannot be reached."
	case ReasonStoreAway:
		return "The store of the function's code cannot be reached."
	case ReasonCodeChanging:
		return "The function's code is being changed."
	case ReasonExhausted:
		return "There is no memory, address or process left for another execution environment."
	case ReasonSlow:
		return "The execution environment was not ready in time."
	}
	return ""
}
