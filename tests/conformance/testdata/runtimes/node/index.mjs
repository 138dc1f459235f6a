// An ES module that imports what is in the runtime and in a layer, as on AWS.
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { execSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { getHeapStatistics } from 'node:v8';
import { word } from 'in-layer';

const s3 = new S3Client({});

export const handler = async () => {
  const object = { Bucket: 'records', Key: 'runtimes/node' };
  await s3.send(new PutObjectCommand({ ...object, Body: 'by the SDK of JavaScript' }));
  const answer = await s3.send(new GetObjectCommand(object));
  return {
    statusCode: 200,
    body: JSON.stringify({
      Values: {
        id: execSync('id').toString(),
        object: await answer.Body.transformToString(),
        layer: word,
        missing: await import('not-there').catch((error) => error.message),
        certificates: readFileSync('/var/runtime/ca-cert.pem', 'utf8').slice(0, 27),
      },
      HeapMB: getHeapStatistics().heap_size_limit / (1 << 20),
    }),
  };
};
