// Sentry's SDK is loaded by NODE_OPTIONS and wraps the handler, as its guide has it; what it sends comes back to this process.
const http = require('node:http');

const received = [];
http.createServer((request, answer) => {
  let body = '';
  request.on('data', (data) => { body += data; });
  request.on('end', () => { received.push(body); answer.end('{}'); });
}).listen(9999, '127.0.0.1').unref();

exports.handler = async (event) => {
  if (event.fail) throw new RangeError(event.fail);
  return { received };
};
