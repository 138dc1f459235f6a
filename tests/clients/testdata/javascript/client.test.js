// The AWS SDK for JavaScript v3 against a box: its settings are the environment's, as in any program.
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';

import {
  BatchWriteItemCommand, CreateTableCommand, DescribeTableCommand, DynamoDBClient, GetItemCommand, PutItemCommand, QueryCommand,
  TransactGetItemsCommand, TransactWriteItemsCommand, waitUntilTableExists,
} from '@aws-sdk/client-dynamodb';
import { DescribeStreamCommand, DynamoDBStreamsClient, GetRecordsCommand, GetShardIteratorCommand, ListStreamsCommand } from '@aws-sdk/client-dynamodb-streams';
import { InvokeCommand, InvokeWithResponseStreamCommand, LambdaClient, ResourceNotFoundException } from '@aws-sdk/client-lambda';
import {
  CopyObjectCommand, CreateBucketCommand, DeleteObjectsCommand, GetObjectAttributesCommand, GetObjectCommand, HeadObjectCommand,
  ListObjectsV2Command, paginateListObjectsV2, PutObjectCommand, S3Client,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';

const lambda = new LambdaClient({});
const s3 = new S3Client({ forcePathStyle: true });
const dynamo = new DynamoDBClient({});
const streams = new DynamoDBStreamsClient({});
const Bucket = `js-${randomUUID()}`;
const echo = { FunctionName: 'lambda-respond', Payload: JSON.stringify({ body: JSON.stringify({ n: 1 }) }) };
const text = (payload) => Buffer.from(payload).toString();

test('lambda: Invoke, with its log, by ARN, and tried out', async () => {
  const answer = await lambda.send(new InvokeCommand({ ...echo, LogType: 'Tail' }));
  assert.equal(answer.StatusCode, 200);
  assert.equal(answer.FunctionError, undefined);
  assert.deepEqual(JSON.parse(text(answer.Payload)), { n: 1 });
  assert.match(Buffer.from(answer.LogResult, 'base64').toString(), /REPORT RequestId: /);
  const arn = await lambda.send(new InvokeCommand({ ...echo, FunctionName: `arn:aws:lambda:us-east-1:123456789012:function:lambda-respond`, Qualifier: '$LATEST' }));
  assert.equal(arn.ExecutedVersion, '$LATEST');
  assert.equal((await lambda.send(new InvokeCommand({ ...echo, InvocationType: 'DryRun' }))).StatusCode, 204);
  assert.equal((await lambda.send(new InvokeCommand({ ...echo, InvocationType: 'Event' }))).StatusCode, 202);
});

test('lambda: errors are the SDK\'s own', async () => {
  await assert.rejects(lambda.send(new InvokeCommand({ FunctionName: 'nobody' })), (e) => e instanceof ResourceNotFoundException && e.$metadata.httpStatusCode === 404);
  await assert.rejects(lambda.send(new InvokeCommand({ FunctionName: 'lambda-respond', Payload: '{' })), { name: 'InvalidRequestContentException' });
  const failed = await lambda.send(new InvokeCommand({ FunctionName: 'lambda-chaos', Payload: JSON.stringify({ body: '{"action":"panic"}' }) }));
  assert.equal(failed.FunctionError, 'Unhandled');
});

test('lambda: InvokeWithResponseStream', async () => {
  const answer = await lambda.send(new InvokeWithResponseStreamCommand({ FunctionName: 'lambda-stream', Payload: JSON.stringify({ rawQueryString: 'chunks=4', queryStringParameters: { chunks: '4', prelude: 'no' } }) }));
  let all = '';
  let complete;
  for await (const event of answer.EventStream) {
    if (event.PayloadChunk) all += text(event.PayloadChunk.Payload);
    if (event.InvokeComplete) complete = event.InvokeComplete;
  }
  assert.match(all, /chunk 4 of 4/);
  assert.equal(complete.ErrorCode, undefined);
});

test('s3: objects, conditions, lists', async () => {
  await s3.send(new CreateBucketCommand({ Bucket }));
  const put = await s3.send(new PutObjectCommand({ Bucket, Key: 'a b/ü+1', Body: 'hello', ContentType: 'text/plain', Metadata: { one: '1' }, ChecksumAlgorithm: 'SHA256', Tagging: 'k=v' }));
  assert.ok(put.ChecksumSHA256);
  const got = await s3.send(new GetObjectCommand({ Bucket, Key: 'a b/ü+1', Range: 'bytes=1-3' }));
  assert.equal(await got.Body.transformToString(), 'ell');
  await assert.rejects(s3.send(new PutObjectCommand({ Bucket, Key: 'a b/ü+1', Body: 'x', IfNoneMatch: '*' })), { name: 'PreconditionFailed' });
  await s3.send(new PutObjectCommand({ Bucket, Key: 'a b/ü+1', Body: 'hello2', IfMatch: put.ETag }));
  await assert.rejects(s3.send(new PutObjectCommand({ Bucket, Key: 'a b/ü+1', Body: 'x', IfMatch: put.ETag })), { name: 'PreconditionFailed' });
  await s3.send(new PutObjectCommand({ Bucket, Key: 'precious', Body: 'precious' }));
  await assert.rejects(s3.send(new CopyObjectCommand({ Bucket, Key: 'precious', CopySource: `${Bucket}/${encodeURIComponent('a b/ü+1')}`, IfNoneMatch: '*' })), { name: 'PreconditionFailed' });
  const attributes = await s3.send(new GetObjectAttributesCommand({ Bucket, Key: 'precious', ObjectAttributes: ['ETag', 'ObjectSize', 'StorageClass'] }));
  assert.equal(attributes.ObjectSize, 8);
  for (let i = 0; i < 5; i++) await s3.send(new PutObjectCommand({ Bucket, Key: `list/${i}`, Body: '' }));
  const keys = [];
  for await (const page of paginateListObjectsV2({ client: s3, pageSize: 2 }, { Bucket, Prefix: 'list/' })) keys.push(...page.Contents.map((o) => o.Key));
  assert.deepEqual(keys, [0, 1, 2, 3, 4].map((i) => `list/${i}`));
  const encoded = await s3.send(new ListObjectsV2Command({ Bucket, Delimiter: '/' }));
  assert.deepEqual(encoded.CommonPrefixes.map((p) => p.Prefix), ['a b/', 'list/']);
  const gone = await s3.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects: keys.map((Key) => ({ Key })) } }));
  assert.equal(gone.Deleted.length, 5);
});

test('s3: multipart, and presigned URLs', async () => {
  const body = randomBytes(11 << 20);
  await new Upload({ client: s3, params: { Bucket, Key: 'big', Body: body }, partSize: 5 << 20 }).done();
  const head = await s3.send(new HeadObjectCommand({ Bucket, Key: 'big', PartNumber: 1 }));
  assert.equal(head.PartsCount, 3);
  const url = await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key: 'big' }), { expiresIn: 60 });
  const got = Buffer.from(await (await fetch(url)).arrayBuffer());
  assert.ok(got.equals(body));
  const upload = await getSignedUrl(s3, new PutObjectCommand({ Bucket, Key: 'put' }), { expiresIn: 60 });
  assert.equal((await fetch(upload, { method: 'PUT', body: 'by URL' })).status, 200);
  const late = await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key: 'put' }), { expiresIn: 1, signingDate: new Date(Date.now() - 60_000) });
  assert.equal((await fetch(late)).status, 403);
});

test('dynamodb: index, conditions, transactions, stream', async () => {
  const TableName = `js-${randomUUID()}`;
  await dynamo.send(new CreateTableCommand({
    TableName,
    BillingMode: 'PAY_PER_REQUEST',
    AttributeDefinitions: [{ AttributeName: 'id', AttributeType: 'S' }, { AttributeName: 'state', AttributeType: 'S' }],
    KeySchema: [{ AttributeName: 'id', KeyType: 'HASH' }],
    GlobalSecondaryIndexes: [{ IndexName: 'by-state', KeySchema: [{ AttributeName: 'state', KeyType: 'HASH' }], Projection: { ProjectionType: 'ALL' } }],
    StreamSpecification: { StreamEnabled: true, StreamViewType: 'NEW_AND_OLD_IMAGES' },
  }));
  await waitUntilTableExists({ client: dynamo, maxWaitTime: 60 }, { TableName });
  const item = (id, state) => ({ id: { S: id }, state: { S: state } });
  await dynamo.send(new BatchWriteItemCommand({ RequestItems: { [TableName]: ['1', '2', '3'].map((id) => ({ PutRequest: { Item: item(id, id === '3' ? 'done' : 'open') } })) } }));
  const open = await dynamo.send(new QueryCommand({ TableName, IndexName: 'by-state', KeyConditionExpression: '#s = :s', ExpressionAttributeNames: { '#s': 'state' }, ExpressionAttributeValues: { ':s': { S: 'open' } } }));
  assert.equal(open.Count, 2);
  await assert.rejects(dynamo.send(new PutItemCommand({ TableName, Item: item('1', 'x'), ConditionExpression: 'attribute_not_exists(id)' })), { name: 'ConditionalCheckFailedException' });
  await dynamo.send(new TransactWriteItemsCommand({ TransactItems: [{ Put: { TableName, Item: item('4', 'open') } }, { Delete: { TableName, Key: { id: { S: '1' } } } }] }));
  await assert.rejects(dynamo.send(new TransactWriteItemsCommand({ TransactItems: [
    { Put: { TableName, Item: item('5', 'open') } }, { ConditionCheck: { TableName, Key: { id: { S: 'none' } }, ConditionExpression: 'attribute_exists(id)' } },
  ] })), (e) => e.name === 'TransactionCanceledException' && e.CancellationReasons[1].Code === 'ConditionalCheckFailed');
  const both = await dynamo.send(new TransactGetItemsCommand({ TransactItems: ['4', '5'].map((id) => ({ Get: { TableName, Key: { id: { S: id } } } })) }));
  assert.deepEqual(both.Responses.map((r) => r.Item?.id?.S), ['4', undefined]);

  const { Table } = await dynamo.send(new DescribeTableCommand({ TableName }));
  const byArn = await dynamo.send(new GetItemCommand({ TableName: Table.TableArn, Key: { id: { S: '2' } } }));
  assert.equal(byArn.Item.state.S, 'open');
  const { Streams } = await streams.send(new ListStreamsCommand({ TableName }));
  assert.deepEqual(Streams.map((s) => s.StreamArn), [Table.LatestStreamArn]);
  const { StreamDescription } = await streams.send(new DescribeStreamCommand({ StreamArn: Table.LatestStreamArn }));
  const names = [];
  for (const shard of StreamDescription.Shards) {
    const { ShardIterator } = await streams.send(new GetShardIteratorCommand({ StreamArn: Table.LatestStreamArn, ShardId: shard.ShardId, ShardIteratorType: 'TRIM_HORIZON' }));
    const { Records } = await streams.send(new GetRecordsCommand({ ShardIterator }));
    names.push(...Records.map((r) => `${r.eventName} ${r.dynamodb.Keys.id.S}`));
  }
  assert.deepEqual(names.sort(), ['INSERT 1', 'INSERT 2', 'INSERT 3', 'INSERT 4', 'REMOVE 1']);
});
