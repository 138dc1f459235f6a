package containerd

import (
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/reason"
)

// startsSuffix takes the place of a container's random part in the name of the log that tells of a function's starts that failed:
// it is found with the function's other logs.
const startsSuffix = "starts"

// sameAgain is for how long the same words about a function's starts are not written again: the gateway tries a start again and
// again, for as long as there are requests.
const sameAgain = time.Minute

// told is what was last written about a function's starts.
type told struct {
	function, text string
	at             time.Time
}

// stageReasons say what an error of a stage of a start means where its cause has not said so.
type stageReasons map[agent.Code]reason.Reason

var (
	codeStage = stageReasons{agent.CodePrecondition: reason.CodeInvalid, agent.CodeUnavailable: reason.StoreAway}
	// An image that no registry was asked for, or none has.
	imageStage = stageReasons{agent.CodePrecondition: reason.ImageMissing, agent.CodeUnavailable: reason.RegistryAway}
	startStage = stageReasons{agent.CodePrecondition: reason.ImageInvalid, agent.CodeUnavailable: reason.AgentAway}
)

// because gives an error of a stage its reason.
func (s stageReasons) because(err error) error {
	code := agent.ErrorCode(err)
	why := s[code]
	switch code {
	case agent.CodeInvalid:
		why = reason.Configuration
	case agent.CodeExhausted:
		why = reason.Exhausted
	case agent.CodeDeadline:
		why = reason.Slow
	}
	return agent.Because(why, err)
}

// tell writes why a start failed into the function's own log: whoever owns the function looks there, and the agent's log is not his.
// A caller that left is no failure.
func (r *Runtime) tell(spec agent.ContainerSpec, failure error) {
	if agent.ErrorCode(failure) == agent.CodeCanceled || !functionName.MatchString(spec.FunctionName) {
		return
	}
	id, now, text := containerID(spec.FunctionName, startsSuffix), time.Now(), "The function could not be started: "+failure.Error()
	r.toldMu.Lock()
	defer r.toldMu.Unlock()
	if last, ok := r.told[id]; ok && last.text == text && now.Sub(last.at) < sameAgain && now.After(last.at) {
		return
	}
	line, err := json.Marshal(struct {
		Time      time.Time `json:"time"`
		Level     string    `json:"level"`
		Type      string    `json:"type"`
		Message   string    `json:"message"`
		Function  string    `json:"function"`
		RequestID string    `json:"request_id,omitempty"`
		Container string    `json:"container_name"`
		ErrorType string    `json:"error_type,omitempty"`
	}{now.UTC(), "ERROR", "platform.fault", text, spec.FunctionName, spec.RequestID, id, string(agent.ErrorReason(failure))})
	if err == nil {
		// Before the file is there: whoever finds it asks whose it is.
		r.told[id] = told{spec.FunctionName, text, now}
		err = errors.Join(r.logs.Create(id, -1), appendTo(r.logs.File(id), append(line, '\n')))
	}
	if err != nil {
		r.log.Warn("a failed start could not be written into the function's log", "function", spec.FunctionName, "error", err)
	}
}

// teller returns the function whose failed starts the log of that name tells of, "" when it is a container's.
func (r *Runtime) teller(id string) string {
	r.toldMu.Lock()
	defer r.toldMu.Unlock()
	return r.told[id].function
}

func appendTo(file string, line []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Close())
}
