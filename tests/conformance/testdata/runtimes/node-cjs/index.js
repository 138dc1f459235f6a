const { DynamoDBClient } = require('@aws-sdk/client-dynamodb');
const { DynamoDBDocumentClient } = require('@aws-sdk/lib-dynamodb');
const { getHeapStatistics } = require('v8');
const { word } = require('shared/word'); // AWS: NODE_PATH has /var/task
const { version } = require('@aws-sdk/client-s3/package.json');

exports.handler = async () => {
  const imported = await import('@aws-sdk/client-lambda');
  return {
    statusCode: 200,
    body: JSON.stringify({
      Values: {
        document: typeof DynamoDBDocumentClient.from(new DynamoDBClient({})).send,
        lambda: typeof imported.LambdaClient,
        shared: word,
        sdk: version,
      },
      HeapMB: getHeapStatistics().heap_size_limit / (1 << 20),
    }),
  };
};
