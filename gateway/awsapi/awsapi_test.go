package awsapi_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/awsapi"
	"github.com/edge-serverless-box/esb/sigv4"
)

func signed(t *testing.T, service, method, target, body string, header map[string]string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for name, value := range header {
		r.Header.Set(name, value)
	}
	sigv4.Sign(r, sigv4.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"}, "us-east-1", service, sigv4.HashPayload([]byte(body)), time.Now())
	return r
}

var (
	form  = map[string]string{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
	json0 = map[string]string{"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.SendMessage"}
	json1 = map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Logs_20140328.DescribeLogGroups"}
	cbor  = map[string]string{"Content-Type": "application/cbor", "Smithy-Protocol": "rpc-v2-cbor"}
)

const message = "The box does not have the service %: it has lambda here, and s3 and dynamodb at endpoints of their own."

// TestWrite is the form of each protocol's errors (Smithy, "AWS protocols"; EC2 and S3 API references, "Error responses").
func TestWrite(t *testing.T) {
	for name, c := range map[string]struct {
		service, method, target, body string
		header                        map[string]string
		status                        int
		want                          map[string]string
		answer                        string
	}{
		"query": {"sts", "POST", "/", "Action=GetCallerIdentity&Version=2011-06-15", form, 400, map[string]string{"Content-Type": "text/xml"},
			`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>InvalidAction</Code><Message>` + message + `</Message></Error><RequestId>id-1</RequestId></ErrorResponse>`},
		"query in the URL": {"iam", "GET", "/?Action=ListUsers&Version=2010-05-08", "", nil, 400, map[string]string{"Content-Type": "text/xml"},
			`<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>InvalidAction</Code><Message>` + message + `</Message></Error><RequestId>id-1</RequestId></ErrorResponse>`},
		"ec2": {"ec2", "POST", "/", "Action=DescribeInstances", form, 400, map[string]string{"Content-Type": "text/xml;charset=UTF-8"},
			`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<Response><Errors><Error><Code>InvalidAction</Code><Message>` + message + `</Message></Error></Errors><RequestID>id-1</RequestID></Response>`},
		"JSON 1.0, once a query": {"sqs", "POST", "/", "{}", json0, 400, map[string]string{"Content-Type": "application/x-amz-json-1.0", "X-Amzn-Query-Error": "UnknownOperationException;Sender"},
			`{"__type":"UnknownOperationException","message":"` + message + `"}`},
		"still a query": {"sqs", "POST", "/", "Action=SendMessage", form, 400, map[string]string{"Content-Type": "text/xml"},
			`<ErrorResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/"><Error><Type>Sender</Type><Code>InvalidAction</Code><Message>` + message + `</Message></Error><RequestId>id-1</RequestId></ErrorResponse>`},
		"JSON 1.1": {"logs", "POST", "/", "{}", json1, 400, map[string]string{"Content-Type": "application/x-amz-json-1.1"},
			`{"__type":"UnknownOperationException","message":"` + message + `"}`},
		"JSON of a service that is new": {"tomorrow", "POST", "/", "{}", json1, 400, map[string]string{"Content-Type": "application/x-amz-json-1.1"},
			`{"__type":"UnknownOperationException","message":"` + message + `"}`},
		"CBOR": {"monitoring", "POST", "/service/GraniteServiceVersion20100801/operation/PutMetricData", "\xa0", cbor, 400,
			map[string]string{"Content-Type": "application/cbor", "Smithy-Protocol": "rpc-v2-cbor", "X-Amzn-Query-Error": "UnknownOperationException;Sender"},
			"\xa2\x66__type\x78\x19UnknownOperationException\x67message\x78\x70" + message},
		"REST and JSON": {"scheduler", "GET", "/schedules", "", nil, 404, map[string]string{"Content-Type": "application/json", "X-Amzn-Errortype": "UnknownOperationException"},
			`{"message":"` + message + `"}`},
		"REST and XML": {"route53", "GET", "/2013-04-01/hostedzone", "", nil, 501, map[string]string{"Content-Type": "text/xml"},
			`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<ErrorResponse><Error><Type>Sender</Type><Code>NotImplemented</Code><Message>` + message + `</Message></Error><RequestId>id-1</RequestId></ErrorResponse>`},
		"S3": {"s3", "GET", "/bucket/key", "", nil, 501, map[string]string{"Content-Type": "application/xml"},
			`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<Error><Code>NotImplemented</Code><Message>The box has s3 at an endpoint of its own, not at the gateway.</Message><RequestId>id-1</RequestId></Error>`},
		"S3, HEAD":         {"s3", "HEAD", "/bucket/key", "", nil, 501, map[string]string{"Content-Type": "application/xml"}, ""},
		"SES of version 2": {"ses", "POST", "/v2/email/outbound-emails", "{}", map[string]string{"Content-Type": "application/json"}, 404, map[string]string{"X-Amzn-Errortype": "UnknownOperationException"}, `{"message":"` + message + `"}`},
		"SES of version 1": {"ses", "POST", "/", "Action=SendEmail", form, 400, map[string]string{"Content-Type": "text/xml"},
			`<ErrorResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><Error><Type>Sender</Type><Code>InvalidAction</Code><Message>` + message + `</Message></Error><RequestId>id-1</RequestId></ErrorResponse>`},
	} {
		t.Run(name, func(t *testing.T) {
			r := signed(t, c.service, c.method, c.target, c.body, c.header)
			s, ok := awsapi.Of(r)
			require.True(t, ok)
			w := httptest.NewRecorder()
			n := s.Write(w, r, "id-1", s.NotHere())
			assert.Equal(t, c.status, w.Code)
			assert.Equal(t, n, w.Body.Len())
			assert.Equal(t, strings.ReplaceAll(c.answer, "%", c.service), w.Body.String())
			for name, value := range c.want {
				assert.Equal(t, value, w.Header().Get(name))
			}
		})
	}
}

// TestOf_LeavesTheRest: what a route may be meant for is left to the routes.
func TestOf_LeavesTheRest(t *testing.T) {
	for name, r := range map[string]*http.Request{
		"not signed":            httptest.NewRequest(http.MethodGet, "/?Action=ListUsers", nil),
		"a route with IAM":      signed(t, "execute-api", "POST", "/x", "{}", json1),
		"a function's own URL":  signed(t, "lambda", "POST", "/x", "{}", nil),
		"a service of somebody": signed(t, "my-service", "POST", "/x", "{}", map[string]string{"Content-Type": "application/json"}),
		"no known form":         signed(t, "tomorrow", "POST", "/", "Action=Do", form),
	} {
		_, ok := awsapi.Of(r)
		assert.False(t, ok, name)
	}
}

// TestClients: AWS's own clients read the errors.
func TestClients(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, ok := awsapi.Of(r)
		assert.True(t, ok, r.URL)
		s.Write(w, r, "id-1", s.NotHere())
	}))
	defer server.Close()
	cfg := aws.Config{Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", "")}
	_, tables := dynamodb.NewFromConfig(cfg).ListTables(t.Context(), nil)
	_, buckets := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }).ListBuckets(t.Context(), nil)
	presigned, err := s3.NewPresignClient(s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("b"), Key: aws.String("k")})
	require.NoError(t, err)
	answer, err := http.Get(presigned.URL)
	require.NoError(t, err)
	_ = answer.Body.Close()
	assert.Equal(t, 501, answer.StatusCode)
	for want, err := range map[string]error{"UnknownOperationException": tables, "NotImplemented": buckets} {
		var e smithy.APIError
		require.True(t, errors.As(err, &e), "%v", err)
		assert.Equal(t, want, e.ErrorCode())
		assert.Contains(t, e.ErrorMessage(), "at an endpoint of its own")
	}
}
