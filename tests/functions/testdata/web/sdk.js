'use strict';
// The AWS SDK that the runtime brings, by require as by import.
const { S3Client, PutObjectCommand, GetObjectCommand } = require('@aws-sdk/client-s3');

exports.handler = async () => {
  const { DynamoDBClient, DescribeTableCommand } = await import('@aws-sdk/client-dynamodb');
  const s3 = new S3Client({});
  await s3.send(new PutObjectCommand({ Bucket: 'functions-files', Key: 'node', Body: 'from node' }));
  const object = await s3.send(new GetObjectCommand({ Bucket: 'functions-files', Key: 'node' }));
  const { Table } = await new DynamoDBClient({}).send(new DescribeTableCommand({ TableName: 'functions-idempotency' }));
  return { text: await object.Body.transformToString(), table: Table.TableStatus };
};
