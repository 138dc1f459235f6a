// Package lifecycle gives an S3 store lifecycle rules that has none: it reads and keeps what PutBucketLifecycleConfiguration
// says, and deletes by it what has expired. Source: S3 user guide, "Managing the lifecycle of objects"; S3 API reference,
// PutBucketLifecycleConfiguration.
package lifecycle

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Limits of S3: rules a bucket, and characters of a rule's id.
const (
	maxRules = 1000
	maxID    = 255
	// MaxBody bounds a configuration in bytes.
	MaxBody = 1 << 20
)

// Configuration is that of one bucket.
type Configuration struct {
	XMLName xml.Name `xml:"LifecycleConfiguration"`
	Xmlns   string   `xml:"xmlns,attr,omitempty"`
	Rules   []Rule   `xml:"Rule"`
}

// Rule says what of a bucket goes, and when.
type Rule struct {
	ID     string  `xml:",omitempty"`
	Prefix *string // the old place of the filter's
	Status string
	Filter *Filter
	// Expiration is that of objects, NoncurrentVersionExpiration of versions that are not the newest any more.
	Expiration                     *Expiration
	NoncurrentVersionExpiration    *NoncurrentVersionExpiration
	AbortIncompleteMultipartUpload *AbortIncompleteMultipartUpload
	// Transitions move objects to another storage class, of which there is one here.
	Transitions                  []struct{} `xml:"Transition"`
	NoncurrentVersionTransitions []struct{} `xml:"NoncurrentVersionTransition"`
}

// Filter says which objects a rule is for: all of what it names must hold.
type Filter struct {
	Prefix                *string
	Tag                   *Tag
	ObjectSizeGreaterThan *int64
	ObjectSizeLessThan    *int64
	And                   *And
}

// And are several conditions.
type And struct {
	Prefix                *string
	Tags                  []Tag `xml:"Tag"`
	ObjectSizeGreaterThan *int64
	ObjectSizeLessThan    *int64
}

// Tag is one of an object.
type Tag struct{ Key, Value string }

// Expiration says when an object goes: so many days after it was made, at a date, or when only its delete marker is left.
type Expiration struct {
	Days                      *int32
	Date                      *time.Time
	ExpiredObjectDeleteMarker *bool
}

// NoncurrentVersionExpiration says when a version goes: so many days after a newer one came, but never the newest of the old ones.
type NoncurrentVersionExpiration struct {
	NoncurrentDays          *int32
	NewerNoncurrentVersions *int32
}

// AbortIncompleteMultipartUpload says when an upload in parts is given up.
type AbortIncompleteMultipartUpload struct{ DaysAfterInitiation *int32 }

// Error is an answer in S3's words.
type Error struct {
	Status        int
	Code, Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

func malformed() error {
	return &Error{http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"}
}

func argument(format string, args ...any) error {
	return &Error{http.StatusBadRequest, "InvalidArgument", fmt.Sprintf(format, args...)}
}

func request(format string, args ...any) error {
	return &Error{http.StatusBadRequest, "InvalidRequest", fmt.Sprintf(format, args...)}
}

// Parse reads a configuration and checks it as S3 does. The error is an *Error.
func Parse(body []byte) (Configuration, error) {
	var c Configuration
	if err := xml.Unmarshal(body, &c); err != nil || len(c.Rules) == 0 || len(c.Rules) > maxRules {
		return c, malformed()
	}
	ids := map[string]bool{}
	for i := range c.Rules {
		r := &c.Rules[i]
		if err := r.check(); err != nil {
			return c, err
		}
		if r.ID == "" {
			r.ID = fmt.Sprintf("rule-%d", i+1)
		}
		if ids[r.ID] {
			return c, argument("Rule ID must be unique. Found same ID for more than one rule")
		}
		ids[r.ID] = true
	}
	return c, nil
}

func (r *Rule) check() error {
	switch {
	case len(r.ID) > maxID:
		return argument("ID length should not exceed allowed limit of %d", maxID)
	case r.Status != "Enabled" && r.Status != "Disabled":
		return malformed()
	case len(r.Transitions) > 0 || len(r.NoncurrentVersionTransitions) > 0:
		return &Error{http.StatusNotImplemented, "NotImplemented", "Transition is not implemented: there is one storage class."}
	case r.Expiration == nil && r.NoncurrentVersionExpiration == nil && r.AbortIncompleteMultipartUpload == nil:
		return request("At least one action needs to be specified in a rule")
	case (r.Filter == nil) == (r.Prefix == nil):
		return malformed()
	}
	if err := r.checkFilter(); err != nil {
		return err
	}
	if e := r.Expiration; e != nil {
		given := 0
		for _, is := range []bool{e.Days != nil, e.Date != nil, e.ExpiredObjectDeleteMarker != nil} {
			if is {
				given++
			}
		}
		switch {
		case given != 1:
			return malformed()
		case e.Days != nil && *e.Days <= 0:
			return argument("'Days' for Expiration action must be a positive integer")
		case e.Date != nil && !e.Date.UTC().Equal(e.Date.UTC().Truncate(24*time.Hour)):
			return argument("'Date' must be at midnight GMT")
		case e.ExpiredObjectDeleteMarker != nil && len(r.tags()) > 0:
			return request("ExpiredObjectDeleteMarker cannot be specified with Tags.")
		}
	}
	if n := r.NoncurrentVersionExpiration; n != nil {
		switch {
		case n.NoncurrentDays == nil:
			return malformed()
		case *n.NoncurrentDays <= 0:
			return argument("'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer")
		case n.NewerNoncurrentVersions != nil && (*n.NewerNoncurrentVersions <= 0 || *n.NewerNoncurrentVersions > 100):
			return argument("'NewerNoncurrentVersions' for NoncurrentVersionExpiration action must be a positive integer of at most 100")
		}
	}
	if a := r.AbortIncompleteMultipartUpload; a != nil {
		switch {
		case a.DaysAfterInitiation == nil:
			return malformed()
		case *a.DaysAfterInitiation <= 0:
			return argument("'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer")
		case len(r.tags()) > 0:
			return request("AbortIncompleteMultipartUpload cannot be specified with Tags.")
		}
	}
	return nil
}

func (r *Rule) checkFilter() error {
	f := r.Filter
	if f == nil {
		return nil
	}
	given := 0
	for _, is := range []bool{f.Prefix != nil, f.Tag != nil, f.ObjectSizeGreaterThan != nil, f.ObjectSizeLessThan != nil, f.And != nil} {
		if is {
			given++
		}
	}
	if given > 1 {
		return malformed()
	}
	if a := f.And; a != nil {
		parts := len(a.Tags)
		for _, is := range []bool{a.Prefix != nil, a.ObjectSizeGreaterThan != nil, a.ObjectSizeLessThan != nil} {
			if is {
				parts++
			}
		}
		if parts < 2 {
			return malformed()
		}
		for i, t := range a.Tags {
			if slices.ContainsFunc(a.Tags[:i], func(o Tag) bool { return o.Key == t.Key }) {
				return request("Duplicate Tag Keys are not allowed.")
			}
		}
	}
	for _, t := range r.tags() {
		if t.Key == "" || len(t.Key) > 128 || len(t.Value) > 256 {
			return &Error{http.StatusBadRequest, "InvalidTag", "The TagKey or the TagValue you have provided is invalid"}
		}
	}
	return nil
}

// prefix is that of the keys that the rule is for.
func (r *Rule) prefix() string {
	switch {
	case r.Prefix != nil:
		return *r.Prefix
	case r.Filter == nil:
	case r.Filter.Prefix != nil:
		return *r.Filter.Prefix
	case r.Filter.And != nil && r.Filter.And.Prefix != nil:
		return *r.Filter.And.Prefix
	}
	return ""
}

// tags are those that an object must have.
func (r *Rule) tags() []Tag {
	switch {
	case r.Filter == nil:
	case r.Filter.Tag != nil:
		return []Tag{*r.Filter.Tag}
	case r.Filter.And != nil:
		return r.Filter.And.Tags
	}
	return nil
}

// sized says whether the rule is for objects of a size.
func (r *Rule) sized(size int64) bool {
	if r.Filter == nil {
		return true
	}
	greater, less := r.Filter.ObjectSizeGreaterThan, r.Filter.ObjectSizeLessThan
	if r.Filter.And != nil {
		greater, less = r.Filter.And.ObjectSizeGreaterThan, r.Filter.And.ObjectSizeLessThan
	}
	return (greater == nil || size > *greater) && (less == nil || size < *less)
}

// named says whether the rule is for objects with a key.
func (r *Rule) named(key string) bool { return strings.HasPrefix(key, r.prefix()) }

// after is when so many days after a time have passed: S3 adds them and takes the next midnight, UTC.
func after(t time.Time, days int32) time.Time {
	at := t.UTC().AddDate(0, 0, int(days))
	midnight := at.Truncate(24 * time.Hour)
	if !midnight.Equal(at) {
		midnight = midnight.AddDate(0, 0, 1)
	}
	return midnight
}

// due says whether an object that was made at a time has expired.
func (e *Expiration) due(made, now time.Time) bool {
	switch {
	case e == nil:
		return false
	case e.Days != nil:
		return !now.Before(after(made, *e.Days))
	case e.Date != nil:
		return !now.Before(*e.Date)
	}
	return false
}

// Marshal returns the configuration as S3 answers it.
func (c Configuration) Marshal() ([]byte, error) {
	c.Xmlns = "http://s3.amazonaws.com/doc/2006-03-01/"
	data, err := xml.Marshal(c)
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), data...), nil
}
