import middy from '@middy/core';
import cors from '@middy/http-cors';
import errors from '@middy/http-error-handler';
import json from '@middy/http-json-body-parser';

export const handler = middy()
  .use(json())
  .use(cors({ origin: 'https://shop.example.com' }))
  .use(errors({ logger: false }))
  .handler(async (event, context) => ({
    statusCode: 200,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ sum: event.body.numbers.reduce((a, b) => a + b, 0), left: context.getRemainingTimeInMillis() > 0 }),
  }));
