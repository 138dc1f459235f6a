// Package provision makes the tables and buckets of resources.yml in the box's stores, and says how the stores are. It is
// the only package of the gateway that imports the AWS SDK's clients for DynamoDB and S3 to change anything there.
//
// It only ever adds: a table, a bucket, an index, a stream, expiry, versioning, another billing. What a store has
// otherwise and cannot be changed without a loss (a key, the keys of an index, a stream of another kind) is reported, in
// the log, by Notes and as a metric, and left as it is. Nothing is deleted.
package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/edge-serverless-box/esb/gateway"
)

// Times of a Provisioner.
const (
	// firstRetry and lastRetry bound the wait until a store that could not be reached is tried again.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
	// resync is how often everything is compared again: a store may have been emptied or replaced.
	resync = time.Minute
	// attemptTimeout bounds one attempt at one resource, waiting for it to become active included.
	attemptTimeout = time.Minute
)

// Store is how a store is reached. An empty Endpoint means that the box does without it.
type Store struct {
	// Endpoint is a URL, such as http://127.0.0.1:9000.
	Endpoint             string
	AccessKey, SecretKey string
}

// Options of a Provisioner.
type Options struct {
	S3, DynamoDB Store
	// Region is the AWS region that requests are signed for.
	Region string
	Logger *slog.Logger
}

// Status of a resource.
type Status string

// Statuses.
const (
	// Pending: the store could not be asked yet, or is still at it.
	Pending Status = "pending"
	// Made: the store has it as resources.yml says.
	Made Status = "made"
	// Differs: it is not as resources.yml says, and the provisioner cannot make it so.
	Differs Status = "differs"
)

// Provisioner keeps the stores as Apply says. Open starts it, Close ends it.
type Provisioner struct {
	s3, dynamodb *keeper
	cancel       context.CancelFunc
	running      sync.WaitGroup
}

// Open starts a provisioner with nothing to make. It does not wait for the stores.
func Open(ctx context.Context, o Options) *Provisioner {
	p := &Provisioner{s3: newKeeper("s3", o.Logger), dynamodb: newKeeper("dynamodb", o.Logger)}
	if o.S3.Endpoint != "" {
		client := s3.New(s3.Options{
			BaseEndpoint: aws.String(o.S3.Endpoint), Region: o.Region, Credentials: o.S3.credentials(), RetryMaxAttempts: 2,
			// A store on an address has no names for its buckets.
			UsePathStyle: true,
		})
		p.s3.client = &bucketStore{client: client, region: o.Region}
	}
	if o.DynamoDB.Endpoint != "" {
		p.dynamodb.client = &tableStore{client: dynamodb.New(dynamodb.Options{
			BaseEndpoint: aws.String(o.DynamoDB.Endpoint), Region: o.Region, Credentials: o.DynamoDB.credentials(), RetryMaxAttempts: 2,
		}), log: o.Logger}
	}
	ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, k := range []*keeper{p.s3, p.dynamodb} {
		p.running.Go(func() { k.run(ctx) })
	}
	return p
}

func (s Store) credentials() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, "")
}

// Apply says what the stores are to hold from now on. It returns at once.
func (p *Provisioner) Apply(r gateway.Resources) {
	buckets := make([]*resource, 0, len(r.Buckets))
	for _, b := range r.Buckets {
		buckets = append(buckets, p.s3.resource("bucket", b.Name, b, "S3_ENDPOINT"))
	}
	tables := make([]*resource, 0, len(r.Tables))
	for _, t := range r.Tables {
		tables = append(tables, p.dynamodb.resource("table", t.Name, t, "DYNAMODB_ENDPOINT"))
	}
	p.s3.apply(buckets)
	p.dynamodb.apply(tables)
}

// Close ends the provisioner and waits for what it is doing.
func (p *Provisioner) Close() {
	p.cancel()
	p.running.Wait()
}

// CheckS3 asks whether the S3 store answers; its answer may be some seconds old.
func (p *Provisioner) CheckS3(ctx context.Context) error { return p.s3.check(ctx) }

// CheckDynamoDB asks whether the DynamoDB store answers; its answer may be some seconds old.
func (p *Provisioner) CheckDynamoDB(ctx context.Context) error { return p.dynamodb.check(ctx) }

// CheckResources returns an error while resources are waiting to be made for the first time.
func (p *Provisioner) CheckResources(context.Context) error {
	var errs []error
	for _, r := range p.states() {
		if r.Status == Pending {
			errs = append(errs, fmt.Errorf("%s %s is not made yet: %s", r.Kind, r.Name, r.reason()))
		}
	}
	return errors.Join(errs...)
}

// Notes are what differs from resources.yml and stays so, one sentence each.
func (p *Provisioner) Notes() []string {
	var notes []string
	for _, r := range p.states() {
		if r.Status != Differs {
			continue
		}
		for _, problem := range r.Problems {
			notes = append(notes, fmt.Sprintf("%s %s: %s", r.Kind, r.Name, problem))
		}
	}
	return notes
}

func (p *Provisioner) states() []State { return slices.Concat(p.dynamodb.states(), p.s3.states()) }

// State is how one resource is.
type State struct {
	Store, Kind, Name string
	Status            Status
	// Problems are what differs, or why it is pending.
	Problems []string
}

func (s State) reason() string {
	if len(s.Problems) == 0 {
		return "its turn has not come"
	}
	return s.Problems[0]
}

// client is one store.
type client interface {
	// ping is a cheap request.
	ping(ctx context.Context) error
	// maker returns what makes a resource of that definition.
	maker(definition any) maker
}

// maker makes one resource. It remembers what a store has been asked for.
type maker interface {
	// ensure makes the resource or changes it. It returns what differs and stays so; an error means that it should be
	// tried again.
	ensure(ctx context.Context) (problems []string, err error)
}

// resource is one table or bucket.
type resource struct {
	kind, name string
	definition any
	maker      maker
	// status and problems are guarded by the keeper's mu.
	status   Status
	problems []string
}

// keeper keeps one store.
type keeper struct {
	name   string
	client client // nil when the store is not used
	log    *slog.Logger
	health health

	wake chan struct{} // has room for one
	// away is true when the store did not answer the last time.
	away atomic.Bool
	// mu guards desired and the states of its resources.
	mu      sync.Mutex
	desired []*resource
}

func newKeeper(name string, log *slog.Logger) *keeper {
	return &keeper{name: name, log: log.With("store", name), wake: make(chan struct{}, 1)}
}

func (k *keeper) resource(kind, name string, definition any, setting string) *resource {
	r := &resource{kind: kind, name: name, definition: definition, status: Pending}
	if k.client != nil {
		r.maker = k.client.maker(definition)
		return r
	}
	r.maker = unusedStore(setting)
	return r
}

// unusedStore is the maker of resources of a store that is off, by its setting.
type unusedStore string

func (s unusedStore) ensure(context.Context) ([]string, error) {
	return []string{string(s) + " is off, so that it is not made: set it to the store's URL, or remove the resource"}, nil
}

// apply replaces what is desired. A resource that stays the same keeps its state.
func (k *keeper) apply(desired []*resource) {
	k.mu.Lock()
	for i, r := range desired {
		for _, old := range k.desired {
			if old.name == r.name && reflect.DeepEqual(old.definition, r.definition) {
				desired[i] = old
			}
		}
	}
	k.desired = desired
	k.mu.Unlock()
	k.hurry()
}

func (k *keeper) run(ctx context.Context) {
	retry := firstRetry
	timer := time.NewTimer(resync)
	defer timer.Stop()
	for {
		wait := resync
		if k.reconcile(ctx) {
			retry = firstRetry
		} else {
			wait = retry
			retry = min(2*retry, lastRetry)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
			retry = firstRetry
		case <-timer.C:
		}
	}
}

// reconcile goes through all resources once. It returns false when one must be tried again.
func (k *keeper) reconcile(ctx context.Context) bool {
	k.mu.Lock()
	desired := slices.Clone(k.desired)
	k.mu.Unlock()
	complete := true
	for _, r := range desired {
		if ctx.Err() != nil {
			return false
		}
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		problems, err := r.maker.ensure(attempt)
		cancel()
		if ctx.Err() != nil {
			return false
		}
		k.note(r, problems, err)
		if err != nil {
			complete = false
		}
	}
	return complete
}

// note keeps the outcome of an attempt, and logs it when it is news.
func (k *keeper) note(r *resource, problems []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, told := r.status, r.problems
	switch {
	case err != nil && r.status != Pending:
		return // the store is away: what is known of the resource stays, and the store's own check says the rest
	case err != nil:
		r.problems = []string{err.Error()}
	case len(problems) > 0:
		r.status, r.problems = Differs, problems
	default:
		r.status, r.problems = Made, nil
	}
	if before == r.status && slices.Equal(told, r.problems) {
		return
	}
	log := k.log.With(r.kind, r.name)
	switch r.status {
	case Pending:
		log.Warn("resource is not made yet and is tried again", "error", err.Error())
	case Differs:
		log.Error("resource differs from resources.yml and is left as it is", "problems", problems)
	case Made:
		log.Info("resource is as resources.yml says")
	}
}

func (k *keeper) states() []State {
	k.mu.Lock()
	defer k.mu.Unlock()
	states := make([]State, 0, len(k.desired))
	for _, r := range k.desired {
		states = append(states, State{Store: k.name, Kind: r.kind, Name: r.name, Status: r.status, Problems: slices.Clone(r.problems)})
	}
	return states
}

func (k *keeper) check(ctx context.Context) error {
	if k.client == nil {
		return nil
	}
	err := k.health.ask(ctx, k.client.ping)
	if k.away.Swap(err != nil) && err == nil {
		k.hurry() // what could not be made can be now
	}
	return err
}

// hurry has run try at once.
func (k *keeper) hurry() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// temporary says whether trying again may help: everything but what a store understood and refused.
func temporary(err error) bool {
	var refused smithy.APIError
	if !errors.As(err, &refused) {
		return true
	}
	switch refused.ErrorCode() {
	case "ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "LimitExceededException",
		"ResourceInUseException", "OperationAborted", "SlowDown":
		return true
	}
	var response *smithyhttp.ResponseError
	if !errors.As(err, &response) {
		return true
	}
	status := response.HTTPStatusCode()
	return status < 400 || status >= 500 || status == 408 || status == 429
}

// refusal is what a store said no with, in a few words.
func refusal(err error) string {
	var refused smithy.APIError
	if errors.As(err, &refused) {
		return fmt.Sprintf("%s: %s", refused.ErrorCode(), refused.ErrorMessage())
	}
	return err.Error()
}
