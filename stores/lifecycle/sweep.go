package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"golang.org/x/time/rate"

	"github.com/edge-serverless-box/esb/stores/sweep"
)

// requestsPerSecond keeps most of the store for its clients: lists of 1000 objects, and deletes.
const requestsPerSecond = 100

// API is what is needed of *s3.Client.
type API interface {
	s3.ListObjectsV2APIClient
	s3.ListObjectVersionsAPIClient
	s3.ListMultipartUploadsAPIClient
	GetObjectTagging(context.Context, *s3.GetObjectTaggingInput, ...func(*s3.Options)) (*s3.GetObjectTaggingOutput, error)
	GetBucketVersioning(context.Context, *s3.GetBucketVersioningInput, ...func(*s3.Options)) (*s3.GetBucketVersioningOutput, error)
	DeleteObject(context.Context, *s3.DeleteObjectInput, ...func(*s3.Options)) (*s3.DeleteObjectOutput, error)
	AbortMultipartUpload(context.Context, *s3.AbortMultipartUploadInput, ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error)
}

// Sweeper deletes from time to time what has expired by the rules. As with S3, that may be some time after it has expired.
type Sweeper struct {
	api   API
	rules *Rules
	now   func() time.Time
	pace  *rate.Limiter
}

// New returns a Sweeper; Start runs one.
func New(api API, rules *Rules) *Sweeper {
	return &Sweeper{api: api, rules: rules, now: time.Now, pace: rate.NewLimiter(requestsPerSecond, requestsPerSecond)}
}

// Start sweeps at once and then interval after each sweep, until Close of what it returns.
func Start(api API, rules *Rules, interval time.Duration, log *slog.Logger) *sweep.Loop {
	return sweep.Start(New(api, rules).Sweep, "objects, versions and uploads, by lifecycle rules", interval, log)
}

// Sweep goes through all buckets with rules once and returns how many objects, versions and uploads are gone. A bucket that fails
// does not keep it from the others.
func (s *Sweeper) Sweep(ctx context.Context) (deleted int, err error) {
	buckets, err := s.rules.Buckets()
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, bucket := range buckets {
		c, ok, err := s.rules.Get(bucket)
		if err == nil && ok {
			var n int
			n, err = s.sweepBucket(ctx, bucket, c)
			deleted += n
		}
		if ctx.Err() != nil {
			return deleted, ctx.Err()
		}
		if code(err) == "NoSuchBucket" {
			err = s.rules.Delete(bucket)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("bucket %s: %w", bucket, err))
		}
	}
	return deleted, errors.Join(errs...)
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func (s *Sweeper) sweepBucket(ctx context.Context, bucket string, c Configuration) (deleted int, err error) {
	var expire, versions, uploads []Rule
	for _, r := range c.Rules {
		if r.Status != "Enabled" {
			continue
		}
		if e := r.Expiration; e != nil && (e.Days != nil || e.Date != nil) {
			expire = append(expire, r)
		}
		if r.NoncurrentVersionExpiration != nil || r.Expiration != nil && aws.ToBool(r.Expiration.ExpiredObjectDeleteMarker) {
			versions = append(versions, r)
		}
		if r.AbortIncompleteMultipartUpload != nil {
			uploads = append(uploads, r)
		}
	}
	for _, step := range []struct {
		rules []Rule
		run   func(context.Context, string, []Rule) (int, error)
	}{{expire, s.sweepObjects}, {versions, s.sweepVersions}, {uploads, s.sweepUploads}} {
		if len(step.rules) == 0 {
			continue
		}
		n, err := step.run(ctx, bucket, step.rules)
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// common is a prefix that all the rules' prefixes begin with.
func common(rules []Rule) *string {
	prefix := rules[0].prefix()
	for _, r := range rules[1:] {
		for !strings.HasPrefix(r.prefix(), prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	if prefix == "" {
		return nil
	}
	return &prefix
}

// sweepObjects deletes objects that have expired. In a bucket with versions that makes a delete marker.
func (s *Sweeper) sweepObjects(ctx context.Context, bucket string, rules []Rule) (deleted int, err error) {
	now := s.now()
	pages := s3.NewListObjectsV2Paginator(s.api, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: common(rules)})
	for pages.HasMorePages() {
		if err := s.pace.Wait(ctx); err != nil {
			return deleted, err
		}
		page, err := pages.NextPage(ctx)
		if err != nil {
			return deleted, fmt.Errorf("list its objects: %w", err)
		}
		for _, o := range page.Contents {
			due, err := s.expired(ctx, bucket, o, rules, now)
			if err != nil {
				return deleted, err
			}
			if !due {
				continue
			}
			done, err := s.delete(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: o.Key, IfMatch: o.ETag, IfMatchLastModifiedTime: o.LastModified})
			if err != nil {
				return deleted, err
			}
			deleted += done
		}
	}
	return deleted, nil
}

// expired says whether one of the rules lets an object go.
func (s *Sweeper) expired(ctx context.Context, bucket string, o types.Object, rules []Rule, now time.Time) (bool, error) {
	var tags []types.Tag
	asked := false
	for _, r := range rules {
		if !r.named(aws.ToString(o.Key)) || !r.sized(aws.ToInt64(o.Size)) || !r.Expiration.due(aws.ToTime(o.LastModified), now) {
			continue
		}
		wanted := r.tags()
		if len(wanted) > 0 && !asked {
			if err := s.pace.Wait(ctx); err != nil {
				return false, err
			}
			out, err := s.api.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: &bucket, Key: o.Key})
			if code(err) == "NoSuchKey" {
				return false, nil
			}
			if err != nil {
				return false, fmt.Errorf("read the tags of %s: %w", aws.ToString(o.Key), err)
			}
			tags, asked = out.TagSet, true
		}
		if tagged(tags, wanted) {
			return true, nil
		}
	}
	return false, nil
}

// tagged says whether all wanted tags are there.
func tagged(tags []types.Tag, wanted []Tag) bool {
	for _, w := range wanted {
		found := false
		for _, t := range tags {
			found = found || aws.ToString(t.Key) == w.Key && aws.ToString(t.Value) == w.Value
		}
		if !found {
			return false
		}
	}
	return true
}

// delete deletes an object unless somebody has written it meanwhile.
func (s *Sweeper) delete(ctx context.Context, in *s3.DeleteObjectInput) (int, error) {
	if err := s.pace.Wait(ctx); err != nil {
		return 0, err
	}
	_, err := s.api.DeleteObject(ctx, in)
	switch code(err) {
	case "PreconditionFailed", "NoSuchKey", "ConditionalRequestConflict":
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("delete %s: %w", aws.ToString(in.Key), err)
	}
	return 1, nil
}

// version is one of an object.
type version struct {
	key, id string
	made    time.Time
	latest  bool
	marker  bool
	size    int64
}

// sweepVersions deletes versions that are not the newest any more, and delete markers that nothing is left behind.
func (s *Sweeper) sweepVersions(ctx context.Context, bucket string, rules []Rule) (deleted int, err error) {
	versioning, err := s.api.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &bucket})
	if err != nil {
		return 0, fmt.Errorf("ask for its versioning: %w", err)
	}
	if versioning.Status == "" {
		return 0, nil // it never had any
	}
	// All versions of one key, the newest first.
	var same []version
	flush := func() error {
		n, err := s.sweepKey(ctx, bucket, same, rules)
		deleted += n
		same = same[:0]
		return err
	}
	pages := s3.NewListObjectVersionsPaginator(s.api, &s3.ListObjectVersionsInput{Bucket: &bucket, Prefix: common(rules)})
	for pages.HasMorePages() {
		if err := s.pace.Wait(ctx); err != nil {
			return deleted, err
		}
		page, err := pages.NextPage(ctx)
		if err != nil {
			return deleted, fmt.Errorf("list its versions: %w", err)
		}
		for _, v := range inOrder(page) {
			if len(same) > 0 && same[0].key != v.key {
				if err := flush(); err != nil {
					return deleted, err
				}
			}
			same = append(same, v)
		}
	}
	return deleted, flush()
}

// inOrder puts versions and delete markers of a page together again: by key, the newest first.
func inOrder(page *s3.ListObjectVersionsOutput) []version {
	var all []version
	i, j := 0, 0
	for i < len(page.Versions) || j < len(page.DeleteMarkers) {
		markerNext := i == len(page.Versions)
		if !markerNext && j < len(page.DeleteMarkers) {
			v, m := page.Versions[i], page.DeleteMarkers[j]
			switch c := strings.Compare(aws.ToString(m.Key), aws.ToString(v.Key)); {
			case c != 0:
				markerNext = c < 0
			case aws.ToBool(v.IsLatest):
			default:
				markerNext = aws.ToBool(m.IsLatest) || aws.ToTime(m.LastModified).After(aws.ToTime(v.LastModified))
			}
		}
		if markerNext {
			m := page.DeleteMarkers[j]
			all = append(all, version{aws.ToString(m.Key), aws.ToString(m.VersionId), aws.ToTime(m.LastModified), aws.ToBool(m.IsLatest), true, 0})
			j++
			continue
		}
		v := page.Versions[i]
		all = append(all, version{aws.ToString(v.Key), aws.ToString(v.VersionId), aws.ToTime(v.LastModified), aws.ToBool(v.IsLatest), false, aws.ToInt64(v.Size)})
		i++
	}
	return all
}

// sweepKey deletes versions of one key, the newest of which comes first.
func (s *Sweeper) sweepKey(ctx context.Context, bucket string, same []version, rules []Rule) (deleted int, err error) {
	now := s.now()
	left := len(same)
	for i, v := range same {
		due := false
		for _, r := range rules {
			n := r.NoncurrentVersionExpiration
			if n == nil || !r.named(v.key) || len(r.tags()) > 0 || !v.marker && !r.sized(v.size) || i == 0 || v.latest {
				continue
			}
			// It is not the newest since the one before came. same[0] is the newest, so i-1 newer ones are not the newest either.
			due = due || i-1 >= int(aws.ToInt32(n.NewerNoncurrentVersions)) && !now.Before(after(same[i-1].made, *n.NoncurrentDays))
		}
		if !due {
			continue
		}
		n, err := s.delete(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: &same[i].key, VersionId: &same[i].id})
		if err != nil {
			return deleted, err
		}
		deleted, left = deleted+n, left-n
	}
	if left != 1 || len(same) == 0 || !same[0].marker || !same[0].latest {
		return deleted, nil
	}
	for _, r := range rules {
		if r.Expiration != nil && aws.ToBool(r.Expiration.ExpiredObjectDeleteMarker) && r.named(same[0].key) {
			n, err := s.delete(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: &same[0].key, VersionId: &same[0].id})
			return deleted + n, err
		}
	}
	return deleted, nil
}

// sweepUploads gives up uploads in parts that nobody has finished.
func (s *Sweeper) sweepUploads(ctx context.Context, bucket string, rules []Rule) (deleted int, err error) {
	now := s.now()
	pages := s3.NewListMultipartUploadsPaginator(s.api, &s3.ListMultipartUploadsInput{Bucket: &bucket, Prefix: common(rules)})
	for pages.HasMorePages() {
		if err := s.pace.Wait(ctx); err != nil {
			return deleted, err
		}
		page, err := pages.NextPage(ctx)
		if err != nil {
			return deleted, fmt.Errorf("list its uploads: %w", err)
		}
		for _, u := range page.Uploads {
			due := false
			for _, r := range rules {
				due = due || r.named(aws.ToString(u.Key)) && !now.Before(after(aws.ToTime(u.Initiated), *r.AbortIncompleteMultipartUpload.DaysAfterInitiation))
			}
			if !due {
				continue
			}
			if err := s.pace.Wait(ctx); err != nil {
				return deleted, err
			}
			if _, err := s.api.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: u.Key, UploadId: u.UploadId}); err != nil && code(err) != "NoSuchUpload" {
				return deleted, fmt.Errorf("give up the upload of %s: %w", aws.ToString(u.Key), err)
			}
			deleted++
		}
	}
	return deleted, nil
}
