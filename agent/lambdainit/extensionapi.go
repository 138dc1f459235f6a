package lambdainit

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const (
	extensionPrefix = "/2020-01-01/extension/"

	headerExtension   = "Lambda-Extension-Identifier"
	headerErrorOfExt  = "Lambda-Extension-Function-Error-Type"
	registrationLimit = 64 << 10
)

// serveExtensions serves the Extensions API (AWS: Lambda developer guide, "Extensions API reference"; types and wording
// of errors are RIE's).
func (i *instance) serveExtensions(w http.ResponseWriter, r *http.Request, call string) {
	method, handle := http.MethodPost, func(w http.ResponseWriter, r *http.Request, e *extension) { i.failExtension(w, r, e, call) }
	switch call {
	case "register":
		handle = func(w http.ResponseWriter, r *http.Request, _ *extension) { i.register(w, r) }
	case "event/next":
		method, handle = http.MethodGet, i.nextEvent
	case "init/error", "exit/error":
	default:
		http.NotFound(w, r)
		return
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	if call == "register" {
		handle(w, r, nil)
		return
	}
	if e := i.identify(w, r); e != nil {
		handle(w, r, e)
	}
}

// identify returns the extension that has sent r; it answers r when there is none.
func (i *instance) identify(w http.ResponseWriter, r *http.Request) *extension {
	id := r.Header.Get(headerExtension)
	switch {
	case id == "":
		forbid(w, "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
		return nil
	case !isUUID(id):
		forbid(w, "Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier")
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range i.extensions {
		if e.id == id {
			return e
		}
	}
	forbid(w, "Extension.UnknownExtensionIdentifier", "Unknown extension "+id)
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

func forbid(w http.ResponseWriter, errorType, message string) {
	writeError(w, http.StatusForbidden, errorType, message)
}

func refuseExtension(w http.ResponseWriter, e *extension, to string) {
	forbid(w, "Extension.InvalidExtensionState",
		"State transition from "+string(e.state)+" to "+to+" failed for extension "+e.name+". Error: State transition is not allowed")
}

// register takes an extension in: one that lambda-init has started, by its file's name, or any other name as one inside
// the function's process, until the runtime asks for its first event.
func (i *instance) register(w http.ResponseWriter, r *http.Request) {
	name := r.Header.Get("Lambda-Extension-Name")
	if name == "" {
		forbid(w, "Extension.InvalidExtensionName", "Empty extension name")
		return
	}
	var body struct {
		Events            []string `json:"events"`
		ConfigurationKeys []string `json:"configurationKeys"`
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, registrationLimit))
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	switch {
	case err != nil:
		forbid(w, "InvalidRequestFormat", err.Error())
		return
	case len(body.ConfigurationKeys) > 0:
		forbid(w, "InvalidRequestFormat", "configurationKeys are deprecated; use environment variables instead")
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
			forbid(w, "Extension.InvalidEventType", event+": ShutdownEventNotSupportedForInternalExtension")
			return
		default:
			forbid(w, "Extension.InvalidEventType", event+": InvalidEventType")
			return
		}
	}
	switch {
	case !internal && e.state != extensionStarted:
		refuseExtension(w, e, string(extensionRegistered))
		return
	case internal && i.state != stateInit:
		forbid(w, "Extension.RegistrationClosed", "Extension registration closed already")
		return
	case internal && e != nil:
		forbid(w, "Extension.InvalidExtensionState", "Extension with this name already registered")
		return
	case internal && len(i.extensions) >= maxExtensions:
		forbid(w, "Extension.TooManyExtensions", "Extension limit ("+itoa(maxExtensions)+") reached")
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
	for feature := range strings.SplitSeq(r.Header.Get("Lambda-Extension-Accept-Feature"), ",") {
		if strings.TrimSpace(feature) == "accountId" {
			b = appendString(append(b, `,"accountId":`...), i.cfg.Account)
			break
		}
	}
	w.Header()[headerExtension] = []string{e.id}
	writeJSON(w, http.StatusOK, append(b, '}'))
}

func writeJSON(w http.ResponseWriter, status int, b []byte) {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// nextEvent says that the extension has done its work, and waits for its next event.
func (i *instance) nextEvent(w http.ResponseWriter, r *http.Request, e *extension) {
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
		refuseExtension(w, e, string(extensionReady))
		i.mu.Unlock()
		return
	}
	i.mu.Unlock()
	select {
	case event := <-e.events:
		w.Header()["Lambda-Extension-Event-Identifier"] = []string{newRequestID()}
		writeJSON(w, http.StatusOK, event)
		_ = http.NewResponseController(w).Flush()
	case <-r.Context().Done():
	}
}

// failExtension takes an extension's word about why it is going to end; its end then ends the instance.
func (i *instance) failExtension(w http.ResponseWriter, r *http.Request, e *extension, call string) {
	errorType := r.Header.Get(headerErrorOfExt)
	if errorType == "" {
		forbid(w, "Extension.MissingHeader", headerErrorOfExt+" not found")
		return
	}
	_, _ = io.CopyN(io.Discard, r.Body, registrationLimit)
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
		refuseExtension(w, e, string(to))
		return
	}
	if e.state != to {
		e.state, e.errorType = to, errorType
		if i.fatal == "" {
			i.fatal = fatal
		}
	}
	accept(w)
}
