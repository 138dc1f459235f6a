// Package reason is the part of the contract that says why no container of a function could be started: the agent gives a reason
// with its error, the gateway tells it to clients. Either may be older than the other and meet a word that it does not know.
package reason

// Domain is whose reasons an ErrorInfo (google.rpc) in an error of the agent has.
const Domain = "esb-runtime"

// Reason is the kind of cause for which no container of a function could be started. Clients of the Invoke API may know it: it
// names nothing of the box.
type Reason string

// Reasons that stay until somebody changes something.
const (
	// ImageMissing: neither an archive nor a registry has the function's image, or the registry refuses to give it.
	ImageMissing Reason = "image_missing"
	// ImageInvalid: there is one, but it is no image, is too large, or its program cannot run.
	ImageInvalid Reason = "image_invalid"
	// RuntimeInvalid: the box has no base image for the function's runtime.
	RuntimeInvalid Reason = "runtime_invalid"
	// CodeMissing: there is no object, file or folder where the function's code or a layer should be, or it may not be read.
	CodeMissing Reason = "code_missing"
	// CodeInvalid: there is one, but it is no zip file, is too large, or has in it what is not allowed.
	CodeInvalid Reason = "code_invalid"
	// Configuration: the agent refuses what it is asked for.
	Configuration Reason = "configuration"
)

// Reasons that pass by themselves: trying again is right.
const (
	// AgentAway: the agent, or its container runtime, does not answer.
	AgentAway Reason = "agent_away"
	// RegistryAway: the image's registry cannot be reached.
	RegistryAway Reason = "registry_away"
	// StoreAway: the store that holds the code cannot be reached.
	StoreAway Reason = "store_away"
	// CodeChanging: the code changes just now.
	CodeChanging Reason = "code_changing"
	// Exhausted: the box has no address, process or disk left for another container.
	Exhausted Reason = "exhausted"
	// NoMemory: the box has no memory for another container. Ending containers without work makes room.
	NoMemory Reason = "no_memory"
	// Slow: the container was not ready in time.
	Slow Reason = "slow"
)

// Permanent says whether trying again without a change is useless.
func (r Reason) Permanent() bool {
	switch r {
	case ImageMissing, ImageInvalid, RuntimeInvalid, CodeMissing, CodeInvalid, Configuration:
		return true
	}
	return false
}

// Text is a sentence for clients, empty for a reason that is not known.
func (r Reason) Text() string {
	switch r {
	case ImageMissing:
		return "The function's image cannot be had: it is missing, or access to it is refused."
	case ImageInvalid:
		return "The function's image is not valid, or its entrypoint cannot run."
	case RuntimeInvalid:
		return "The function's runtime is not available."
	case CodeMissing:
		return "The function's code, or one of its layers, is missing, or access to it is refused."
	case CodeInvalid:
		return "The function's code, or one of its layers, could not be unzipped, is too large, or holds what is not allowed."
	case Configuration:
		return "The function's configuration is not valid."
	case AgentAway:
		return "The service that runs functions does not answer."
	case RegistryAway:
		return "The registry of the function's image cannot be reached."
	case StoreAway:
		return "The store of the function's code cannot be reached."
	case CodeChanging:
		return "The function's code is being changed."
	case Exhausted:
		return "There is no memory, address or process left for another execution environment."
	case NoMemory:
		return "There is no memory left for another execution environment."
	case Slow:
		return "The execution environment was not ready in time."
	}
	return ""
}
