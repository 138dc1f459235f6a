package lambdainit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
)

// Paths of the Telemetry API and of the Logs API that it has taken the place of (AWS: Lambda developer guide, "Lambda
// Telemetry API").
const (
	telemetryPath = "/2022-07-01/telemetry"
	logsPath      = "/2020-08-15/logs"
)

// Limits of a subscription's buffering (AWS: "Telemetry API, buffering memory usage and buffering").
const (
	minItems, maxItems, defaultItems   = 1000, 10_000, 10_000
	minBytes, maxBytes, defaultBytes   = 256 << 10, 1 << 20, 256 << 10
	minBuffer, maxBuffer, bufferWindow = 25, 30_000, 1000 // ms
)

const (
	// telemetryBacklog is how many bytes of events wait for a subscriber while the init phase is going on.
	telemetryBacklog = 64 << 10
	// deliveryLimit bounds one delivery, and deliveryTries how often it is tried before its events are lost.
	deliveryLimit = 2 * time.Second
	deliveryTries = 3
	deliveryPause = 100 * time.Millisecond
	// flushLimit is what the last delivery before a shutdown may take.
	flushLimit = 200 * time.Millisecond
)

// Classes of events that an extension subscribes to.
const (
	classPlatform  = "platform"
	classFunction  = "function"
	classExtension = "extension"
)

// telemetry sends what happens in one life of the function's process to the extensions that have subscribed.
type telemetry struct {
	stop    chan struct{}
	senders sync.WaitGroup

	// mu guards the following. It may be taken while the journal's mu is held, never the other way round.
	mu          sync.Mutex
	subscribers []*subscriber
	// backlog keeps events for those that are still to come, while open is true.
	open    bool
	backlog []telemetryEvent
	size    int
	ended   bool
}

type telemetryEvent struct {
	class string
	text  []byte
}

// subscriber is one extension's subscription.
type subscriber struct {
	extension   string
	logs        bool // it knows the Logs API's events
	classes     []string
	destination *url.URL
	items       int
	bytes       int
	window      time.Duration

	wake    chan struct{} // there is something
	full    chan struct{} // there is enough for a delivery
	sending sync.Mutex    // held during a delivery

	// mu guards the following.
	mu      sync.Mutex
	queue   []byte // events, separated by commas
	count   int
	dropped int
}

// serveTelemetry takes a subscription.
func (i *instance) serveTelemetry(x *http1.Exchange) {
	if x.Method != http1.MethodPut {
		x.NotAllowed(http1.MethodPut)
		return
	}
	e := i.identify(x)
	if e == nil {
		return
	}
	i.mu.Lock()
	done := !i.readyAt.IsZero()
	i.mu.Unlock()
	logs := x.Path == logsPath
	if done {
		kind := "Telemetry"
		if logs {
			kind = "Logs"
		}
		forbid(x, kind+".SubscriptionClosed", kind+" API subscription is closed already")
		return
	}
	s, err := readSubscription(x)
	if err != nil {
		writeError(x, 400, "ValidationError", err.Error())
		return
	}
	s.extension, s.logs = e.name, logs
	i.telemetry.subscribe(s)
	subscription := "platform.telemetrySubscription"
	if logs {
		subscription = "platform.logsSubscription"
	}
	i.telemetry.platform(subscription, func(b []byte) []byte {
		b = appendString(append(b, `"name":`...), e.name)
		b = append(b, `,"state":"Subscribed","types":`...)
		return appendStrings(b, s.classes)
	})
	x.Status(200)
	x.Set("Content-Type", "text/plain; charset=utf-8")
	x.Send([]byte("OK"))
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for n, s := range list {
		if n > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

func readSubscription(body io.Reader) (*subscriber, error) {
	var in struct {
		Types     []string `json:"types"`
		Buffering struct {
			MaxItems  *int `json:"maxItems"`
			MaxBytes  *int `json:"maxBytes"`
			TimeoutMS *int `json:"timeoutMs"`
		} `json:"buffering"`
		Destination struct {
			Protocol string `json:"protocol"`
			URI      string `json:"URI"`
		} `json:"destination"`
	}
	if err := json.NewDecoder(io.LimitReader(body, registrationLimit)).Decode(&in); err != nil {
		return nil, fmt.Errorf("the subscription is no JSON: %w", err)
	}
	s := &subscriber{classes: in.Types, wake: make(chan struct{}, 1), full: make(chan struct{}, 1)}
	if len(in.Types) == 0 {
		return nil, errors.New("types: must name at least one of platform, function and extension")
	}
	for _, t := range in.Types {
		if t != classPlatform && t != classFunction && t != classExtension {
			return nil, fmt.Errorf("types: must be platform, function or extension, got %q", t)
		}
	}
	var err error
	number := func(name string, given *int, least, most, otherwise int) int {
		if given == nil {
			return otherwise
		}
		if *given < least || *given > most {
			err = fmt.Errorf("buffering.%s: must be %d to %d, got %d", name, least, most, *given)
		}
		return *given
	}
	s.items = number("maxItems", in.Buffering.MaxItems, minItems, maxItems, defaultItems)
	s.bytes = number("maxBytes", in.Buffering.MaxBytes, minBytes, maxBytes, defaultBytes)
	s.window = time.Duration(number("timeoutMs", in.Buffering.TimeoutMS, minBuffer, maxBuffer, bufferWindow)) * time.Millisecond
	if err != nil {
		return nil, err
	}
	if in.Destination.Protocol != "HTTP" {
		return nil, fmt.Errorf("destination.protocol: must be HTTP on this box, got %q", in.Destination.Protocol)
	}
	s.destination, err = url.Parse(in.Destination.URI)
	if err != nil || s.destination.Scheme != "http" || s.destination.Port() == "" || !slices.Contains([]string{"sandbox.localdomain", "sandbox", "localhost", "127.0.0.1"}, s.destination.Hostname()) {
		return nil, fmt.Errorf("destination.URI: must be http://sandbox.localdomain:<port>, got %q", in.Destination.URI)
	}
	return s, nil
}

// subscribe starts a sender, which ends with close.
func (t *telemetry) subscribe(s *subscriber) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	for _, e := range t.backlog {
		s.add(e)
	}
	t.subscribers = append(t.subscribers, s)
	t.senders.Go(func() { s.send(t.stop) })
}

// begin keeps events from now on, for extensions that subscribe later in the init phase; settle ends that.
func (t *telemetry) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = true
}

func (t *telemetry) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open, t.backlog = false, nil
}

// listens says whether anybody wants to know; asked before an event is put together.
func (t *telemetry) listens() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open || len(t.subscribers) > 0
}

// platform tells an event of lambda-init's own; record appends the members of its record.
func (t *telemetry) platform(kind string, members record) {
	if !t.listens() {
		return
	}
	t.publish(telemetryEvent{classPlatform, members.event(kind)})
}

// event is the whole event of a record.
func (r record) event(kind string) []byte {
	return append(r(append(eventHead(kind), '{')), "}}"...)
}

// line tells a line of the function or of an extension.
func (t *telemetry) line(class string, text string) {
	if !t.listens() {
		return
	}
	t.publish(telemetryEvent{class, append(appendString(eventHead(class), text), '}')})
}

func eventHead(kind string) []byte {
	b := append(make([]byte, 0, 256), `{"time":"`...)
	b = time.Now().UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	return append(append(append(b, `","type":"`...), kind...), `","record":`...)
}

func (t *telemetry) publish(e telemetryEvent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open && t.size+len(e.text) <= telemetryBacklog {
		t.backlog, t.size = append(t.backlog, e), t.size+len(e.text)
	}
	for _, s := range t.subscribers {
		s.add(e)
	}
}

// flush delivers what there is, within flushLimit.
func (t *telemetry) flush() {
	t.mu.Lock()
	all := t.subscribers
	t.mu.Unlock()
	if len(all) == 0 {
		return
	}
	var sending sync.WaitGroup
	done := make(chan struct{})
	for _, s := range all {
		sending.Go(func() { s.deliver(1) })
	}
	go func() {
		sending.Wait()
		close(done)
	}()
	wait(done, flushLimit)
}

// close ends the senders. It is called when the extensions are gone.
func (t *telemetry) close() {
	t.mu.Lock()
	ended := t.ended
	t.ended = true
	t.mu.Unlock()
	if !ended {
		close(t.stop)
	}
	t.senders.Wait()
}

// add queues an event; what a subscriber that takes nothing has no room for is dropped, and it is told so.
func (s *subscriber) add(e telemetryEvent) {
	if !slices.Contains(s.classes, e.class) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue)+len(e.text) > 4*s.bytes {
		s.dropped++
		return
	}
	if s.count > 0 {
		s.queue = append(s.queue, ',')
	}
	s.queue = append(s.queue, e.text...)
	s.count++
	kick(s.wake)
	if s.count >= s.items || len(s.queue) >= s.bytes {
		kick(s.full)
	}
}

// send delivers events, many at once, until stop is closed.
func (s *subscriber) send(stop <-chan struct{}) {
	timer := time.NewTimer(s.window)
	defer timer.Stop()
	for {
		select {
		case <-s.wake:
		case <-stop:
			return
		}
		timer.Reset(s.window)
		select {
		case <-timer.C:
		case <-s.full:
		case <-stop:
			return
		}
		s.deliver(deliveryTries)
	}
}

func (s *subscriber) deliver(tries int) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	events, dropped := s.queue, s.dropped
	s.queue, s.count, s.dropped = nil, 0, 0
	s.mu.Unlock()
	if dropped > 0 {
		e := append(eventHead("platform.logsDropped"), `{"reason":"The subscriber does not take its events fast enough","droppedRecords":`...)
		e = append(strconv.AppendInt(e, int64(dropped), 10), "}}"...)
		events = append(append(e, ','), events...)
	}
	if len(events) == 0 {
		return
	}
	body := append(append([]byte{'['}, events...), ']')
	for n := range tries {
		if n > 0 {
			time.Sleep(deliveryPause)
		}
		if s.post(body) == nil {
			return
		}
	}
}

// post sends one batch. net/http's own client would make lambda-init, of which there is one in every container, larger.
func (s *subscriber) post(body []byte) error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", s.destination.Port()), deliveryLimit)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(deliveryLimit)); err != nil {
		return err
	}
	var b bytes.Buffer
	path := s.destination.RequestURI()
	_, _ = fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		path, s.destination.Host, len(body))
	b.Write(body)
	if _, err := conn.Write(b.Bytes()); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "HTTP/1.") || len(line) < 10 || line[9] != '2' {
		return fmt.Errorf("answer %q", strings.TrimSpace(line))
	}
	return nil
}

// The events of AWS's schema 2022-12-13 that lambda-init tells follow.

const initPhase = `"initializationType":"on-demand","phase":"init"`

// record appends the members of an event's record.
type record func([]byte) []byte

func initStartRecord(c *Config) record {
	return func(b []byte) []byte {
		b = appendString(append(b, initPhase+`,"functionName":`...), c.Function)
		return appendString(append(b, `,"functionVersion":`...), c.Version)
	}
}

func initDoneRecord() record {
	return func(b []byte) []byte { return append(b, initPhase+`,"status":"success"`...) }
}

func initReportRecord(took time.Duration) record {
	return func(b []byte) []byte {
		return append(appendMS(append(b, initPhase+`,"status":"success","metrics":{"durationMs":`...), took), '}')
	}
}

func extensionRecord(name, state, errorType string, events []string) record {
	return func(b []byte) []byte {
		b = appendString(append(b, `"name":`...), name)
		b = appendString(append(b, `,"state":`...), state)
		b = appendStrings(append(b, `,"events":`...), events)
		if errorType != "" {
			b = appendString(append(b, `,"errorType":`...), errorType)
		}
		return b
	}
}

func startRecord(inv *invocation, version string) record {
	return func(b []byte) []byte {
		b = appendString(append(b, `"requestId":`...), inv.id)
		b = appendString(append(b, `,"version":`...), version)
		return appendTracing(b, inv)
	}
}

func doneRecord(inv *invocation, out *outcome) record {
	return func(b []byte) []byte {
		b = appendString(append(b, `"requestId":`...), inv.id)
		b = appendStatus(b, out)
		b = appendMS(append(b, `,"metrics":{"durationMs":`...), out.took())
		b = strconv.AppendInt(append(b, `,"producedBytes":`...), int64(len(out.body)), 10)
		return appendTracing(append(b, '}'), inv)
	}
}

func reportRecord(inv *invocation, out *outcome, memoryMB int, peak uint64) record {
	return func(b []byte) []byte {
		b = appendString(append(b, `"requestId":`...), inv.id)
		b = appendStatus(b, out)
		took := out.took()
		b = appendMS(append(b, `,"metrics":{"durationMs":`...), took)
		b = strconv.AppendInt(append(b, `,"billedDurationMs":`...), int64((took+time.Millisecond-1)/time.Millisecond), 10)
		b = strconv.AppendInt(append(b, `,"memorySizeMB":`...), int64(memoryMB), 10)
		b = strconv.AppendInt(append(b, `,"maxMemoryUsedMB":`...), int64((peak+1<<20-1)>>20), 10)
		if out.init > 0 {
			b = appendMS(append(b, `,"initDurationMs":`...), out.init)
		}
		return appendTracing(append(b, '}'), inv)
	}
}

func appendMS(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d)/float64(time.Millisecond), 'f', 3, 64)
}

func appendStatus(b []byte, out *outcome) []byte {
	switch out.errorType {
	case "":
		return append(b, `,"status":"success"`...)
	case errTimeout:
		return append(b, `,"status":"timeout"`...)
	}
	return appendString(append(b, `,"status":"error","errorType":`...), out.errorType)
}

func appendTracing(b []byte, inv *invocation) []byte {
	if inv.trace == "" {
		return b
	}
	return append(appendString(append(b, `,"tracing":{"type":"X-Amzn-Trace-Id","value":`...), inv.trace), '}')
}
