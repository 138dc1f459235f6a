// Package ttl deletes expired items from the tables of a DynamoDB API that only remembers which of them have TTL switched
// on. As with AWS, an item goes some time after it has expired, and reads see it until then.
package ttl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/time/rate"

	"github.com/edge-serverless-box/esb/stores/sweep"
)

const (
	// pageSize is how many items one Scan looks at.
	pageSize = 250
	// pagesPerSecond and deletesPerSecond keep most of the store for its clients.
	pagesPerSecond   = 10
	deletesPerSecond = 100
	// maxAge: AWS leaves items alone that have expired more than five years ago, because such a number is most likely no
	// time at all (DynamoDB developer guide, TTL).
	maxAge = 5 * 365 * 24 * time.Hour
)

// API is what is needed of *dynamodb.Client.
type API interface {
	dynamodb.ListTablesAPIClient
	dynamodb.ScanAPIClient
	DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error)
	DescribeTimeToLive(context.Context, *dynamodb.DescribeTimeToLiveInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
}

// Sweeper deletes expired items from time to time.
type Sweeper struct {
	api     API
	now     func() time.Time
	pages   *rate.Limiter
	deletes *rate.Limiter
}

// New returns a Sweeper; Start runs one.
func New(api API) *Sweeper {
	return &Sweeper{
		api: api, now: time.Now,
		pages: rate.NewLimiter(pagesPerSecond, 1), deletes: rate.NewLimiter(deletesPerSecond, 1),
	}
}

// Start sweeps at once and then interval after each sweep, until Close of what it returns.
func Start(api API, interval time.Duration, log *slog.Logger) *sweep.Loop {
	return sweep.Start(New(api).Sweep, "items, by their TTL", interval, log)
}

// Sweep goes through all tables once and returns how many items it has deleted. A table that fails does not keep it from
// the others.
func (s *Sweeper) Sweep(ctx context.Context) (deleted int, err error) {
	var errs []error
	tables := dynamodb.NewListTablesPaginator(s.api, &dynamodb.ListTablesInput{})
	for tables.HasMorePages() {
		page, err := tables.NextPage(ctx)
		if err != nil {
			return deleted, errors.Join(append(errs, fmt.Errorf("list the tables: %w", err))...)
		}
		for _, table := range page.TableNames {
			n, err := s.sweepTable(ctx, table)
			deleted += n
			if ctx.Err() != nil {
				return deleted, ctx.Err()
			}
			var gone *types.ResourceNotFoundException
			if err != nil && !errors.As(err, &gone) {
				errs = append(errs, fmt.Errorf("table %s: %w", table, err))
			}
		}
	}
	return deleted, errors.Join(errs...)
}

func (s *Sweeper) sweepTable(ctx context.Context, table string) (deleted int, err error) {
	ttl, err := s.api.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &table})
	if err != nil {
		return 0, fmt.Errorf("ask for its TTL: %w", err)
	}
	if ttl.TimeToLiveDescription == nil || ttl.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusEnabled {
		return 0, nil
	}
	attribute := aws.ToString(ttl.TimeToLiveDescription.AttributeName)
	description, err := s.api.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &table})
	if err != nil {
		return 0, fmt.Errorf("ask for its keys: %w", err)
	}
	names := map[string]string{"#ttl": attribute}
	projection := ""
	for i, key := range description.Table.KeySchema {
		name := "#k" + strconv.Itoa(i)
		names[name] = aws.ToString(key.AttributeName)
		if i > 0 {
			projection += ", "
		}
		projection += name
	}
	now := s.now()
	items := dynamodb.NewScanPaginator(s.api, &dynamodb.ScanInput{
		TableName: &table, Limit: aws.Int32(pageSize),
		FilterExpression:         aws.String("#ttl < :now AND #ttl > :oldest"),
		ProjectionExpression:     &projection,
		ExpressionAttributeNames: names,
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":now":    seconds(now),
			":oldest": seconds(now.Add(-maxAge)),
		},
	})
	for items.HasMorePages() {
		if err := s.pages.Wait(ctx); err != nil {
			return deleted, err
		}
		page, err := items.NextPage(ctx)
		if err != nil {
			return deleted, fmt.Errorf("look for expired items: %w", err)
		}
		for _, key := range page.Items {
			if err := s.deletes.Wait(ctx); err != nil {
				return deleted, err
			}
			done, err := s.delete(ctx, table, attribute, key, now)
			if err != nil {
				return deleted, err
			}
			if done {
				deleted++
			}
		}
	}
	return deleted, nil
}

// delete deletes an item if it is still the case that it has expired: its owner may have given it more time meanwhile.
func (s *Sweeper) delete(ctx context.Context, table, attribute string, key map[string]types.AttributeValue, now time.Time) (bool, error) {
	_, err := s.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &table, Key: key,
		ConditionExpression:       aws.String("#ttl < :now AND #ttl > :oldest"),
		ExpressionAttributeNames:  map[string]string{"#ttl": attribute},
		ExpressionAttributeValues: map[string]types.AttributeValue{":now": seconds(now), ":oldest": seconds(now.Add(-maxAge))},
	})
	var refreshed *types.ConditionalCheckFailedException
	if errors.As(err, &refreshed) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("delete an expired item: %w", err)
	}
	return true, nil
}

// seconds is the form of TTL attributes: numbers of seconds since 1970. Comparisons with an attribute of another type are
// false.
func seconds(t time.Time) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(t.Unix(), 10)}
}
