package lambdainit

import (
	"encoding/json"
	"io"
	"strings"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
)

const (
	extensionPrefix = "/2020-01-01/extension/"

	headerExtension   = "Lambda-Extension-Identifier"
	headerErrorOfExt  = "Lambda-Extension-Function-Error-Type"
	registrationLimit = 64 << 10
)

// serveExtensions serves the Extensions API (AWS: Lambda developer guide, "Extensions API reference"; types and wording
// of errors are RIE's).
func (i *instance) serveExtensions(x *http1.Exchange, call string) {
	method := http1.MethodPost
	switch call {
	case "event/next":
		method = http1.MethodGet
	case "register", "init/error", "exit/error":
	default:
		notFound(x)
		return
	}
	if x.Method != method {
		x.NotAllowed(method)
		return
	}
	if call == "register" {
		i.register(x)
		return
	}
	switch e := i.identify(x); {
	case e == nil:
	case call == "event/next":
		i.nextEvent(x, e)
	default:
		i.failExtension(x, e, call)
	}
}

// identify returns the extension that has sent x; it answers x when there is none.
func (i *instance) identify(x *http1.Exchange) *extension {
	id := x.Header(headerExtension)
	switch {
	case id == "":
		forbid(x, "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
		return nil
	case !isUUID(id):
		forbid(x, "Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier")
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range i.extensions {
		if e.id == id {
			return e
		}
	}
	forbid(x, "Extension.UnknownExtensionIdentifier", "Unknown extension "+id)
	return nil
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for n, c := range []byte(s) {
		switch {
		case n == 8 || n == 13 || n == 18 || n == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}

func forbid(x *http1.Exchange, errorType, message string) {
	writeError(x, 403, errorType, message)
}

func refuseExtension(x *http1.Exchange, e *extension, to string) {
	forbid(x, "Extension.InvalidExtensionState",
		"State transition from "+string(e.state)+" to "+to+" failed for extension "+e.name+". Error: State transition is not allowed")
}

// register takes an extension in: one that lambda-init has started, by its file's name, or any other name as one inside
// the function's process, until the runtime asks for its first event.
func (i *instance) register(x *http1.Exchange) {
	name := x.Header("Lambda-Extension-Name")
	if name == "" {
		forbid(x, "Extension.InvalidExtensionName", "Empty extension name")
		return
	}
	var body struct {
		Events            []string `json:"events"`
		ConfigurationKeys []string `json:"configurationKeys"`
	}
	text, err := io.ReadAll(io.LimitReader(x, registrationLimit))
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	switch {
	case err != nil:
		forbid(x, "InvalidRequestFormat", err.Error())
		return
	case len(body.ConfigurationKeys) > 0:
		forbid(x, "InvalidRequestFormat", "configurationKeys are deprecated; use environment variables instead")
		return
	}

	i.mu.Lock()
	defer i.mu.Unlock()
	var e *extension
	for _, known := range i.extensions {
		if known.name == name {
			e = known
		}
	}
	internal := e == nil || !e.external
	var invoke, shutdown bool
	for _, event := range body.Events {
		switch {
		case event == "INVOKE":
			invoke = true
		case event == "SHUTDOWN" && !internal:
			shutdown = true
		case event == "SHUTDOWN":
			forbid(x, "Extension.InvalidEventType", event+": ShutdownEventNotSupportedForInternalExtension")
			return
		default:
			forbid(x, "Extension.InvalidEventType", event+": InvalidEventType")
			return
		}
	}
	switch {
	case !internal && e.state != extensionStarted:
		refuseExtension(x, e, string(extensionRegistered))
		return
	case internal && i.state != stateInit:
		forbid(x, "Extension.RegistrationClosed", "Extension registration closed already")
		return
	case internal && e != nil:
		forbid(x, "Extension.InvalidExtensionState", "Extension with this name already registered")
		return
	case internal && len(i.extensions) >= maxExtensions:
		forbid(x, "Extension.TooManyExtensions", "Extension limit ("+itoa(maxExtensions)+") reached")
		return
	case internal:
		e = &extension{name: name, events: make(chan []byte, 2)}
		i.extensions = append(i.extensions, e)
	default:
		if i.unregistered--; i.unregistered == 0 {
			close(i.registered)
		}
	}
	e.id, e.state, e.invoke, e.shutdown = newRequestID(), extensionRegistered, invoke, shutdown

	b := appendString([]byte(`{"functionName":`), i.cfg.Function)
	b = appendString(append(b, `,"functionVersion":`...), i.cfg.Version)
	b = appendString(append(b, `,"handler":`...), i.cfg.Handler)
	for feature := range strings.SplitSeq(x.Header("Lambda-Extension-Accept-Feature"), ",") {
		if strings.TrimSpace(feature) == "accountId" {
			b = appendString(append(b, `,"accountId":`...), i.cfg.Account)
			break
		}
	}
	writeJSON(x, headerExtension, e.id, append(b, '}'))
}

func writeJSON(x *http1.Exchange, name, value string, b []byte) {
	x.Status(200)
	x.Set(name, value)
	x.Set("Content-Type", "application/json")
	x.Send(b)
}

// nextEvent says that the extension has done its work, and waits for its next event.
func (i *instance) nextEvent(x *http1.Exchange, e *extension) {
	i.mu.Lock()
	switch e.state {
	case extensionRegistered, extensionReady:
		e.state = extensionReady
		i.settleInit()
	case extensionRunning:
		if len(e.events) > 0 {
			break // it has not got the event yet: its earlier call broke off
		}
		e.state = extensionReady
		if i.working > 0 && e.invoke && !i.leaving {
			if i.working--; i.working == 0 {
				close(i.rested)
			}
		}
	default:
		refuseExtension(x, e, string(extensionReady))
		i.mu.Unlock()
		return
	}
	i.mu.Unlock()
	select {
	case event := <-e.events:
		writeJSON(x, "Lambda-Extension-Event-Identifier", newRequestID(), event)
	case <-x.Watch():
	}
}

// failExtension takes an extension's word about why it is going to end; its end then ends the instance.
func (i *instance) failExtension(x *http1.Exchange, e *extension, call string) {
	errorType := x.Header(headerErrorOfExt)
	if errorType == "" {
		forbid(x, "Extension.MissingHeader", headerErrorOfExt+" not found")
		return
	}
	_, _ = io.CopyN(io.Discard, x, registrationLimit)
	to, fatal := extensionExitFailed, errExtensionExit
	from := []extensionState{extensionRegistered, extensionReady, extensionRunning}
	if call == "init/error" {
		to, fatal, from = extensionInitFailed, errExtensionInit, from[:1]
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	allowed := e.state == to
	for _, s := range from {
		allowed = allowed || e.state == s
	}
	if !allowed {
		refuseExtension(x, e, string(to))
		return
	}
	if e.state != to {
		e.state, e.errorType = to, errorType
		if i.fatal == "" {
			i.fatal = fatal
		}
	}
	accept(x)
}
