'use strict';
// lambda-stream-node: GET ?chunks=n&pause_ms=n streams n lines (3), with a pause (0) before each but the first.

exports.handler = awslambda.streamifyResponse(async (event, responseStream) => {
  const query = event.queryStringParameters ?? {};
  const chunks = Number(query.chunks ?? 3);
  const pause = Number(query.pause_ms ?? 0);
  const good = Number.isInteger(chunks) && chunks >= 0 && chunks <= 1000 && pause >= 0 && pause <= 60000;
  const out = awslambda.HttpResponseStream.from(responseStream, {
    statusCode: good ? 200 : 400,
    headers: { 'Content-Type': 'text/plain; charset=utf-8' },
  });
  if (!good) {
    out.end('chunks must be 0 to 1000, pause_ms 0 to 60000\n');
    return;
  }
  for (let i = 1; i <= chunks; i++) {
    if (i > 1) await new Promise((resolve) => { setTimeout(resolve, pause); });
    out.write(`chunk ${i} of ${chunks}\n`);
  }
  out.end();
});
