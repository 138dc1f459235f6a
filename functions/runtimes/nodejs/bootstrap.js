'use strict';
// AWS Lambda runtime client of the esb Node.js base image: the loop between the Runtime API and a handler.
//
//     node /var/runtime/bootstrap.js [module.function]
//
// The handler is $_HANDLER, as on AWS, where instrumentation that NODE_OPTIONS names may have put its own in; else the first
// argument (an image's CMD). Its module is searched in $LAMBDA_TASK_ROOT (/var/task). Handlers may be async or return a value, before nodejs24.x they may call back; modules may be
// CommonJS or ES modules. Messages, log lines and error types are those of AWS's own Node.js client
// (aws-lambda-nodejs-runtime-interface-client: version 3 up to nodejs22.x, version 4 from nodejs24.x on).
// A handler that awslambda.streamifyResponse made answers piece by piece (AWS: "Response streaming").
//
// It speaks HTTP on a plain socket: loading node:http costs 4 ms of every cold start, and its Agent hides whether a
// waiting connection keeps the event loop alive, which callbackWaitsForEmptyEventLoop depends on.

const fs = require('fs');
const net = require('net');
const path = require('path');
const util = require('util');
const { Writable } = require('stream'); // node:net has loaded it already

const API = '/2018-06-01/runtime';

// Whether handlers may call back. From Node.js 24 on AWS has no such handlers, and neither context.succeed nor callbackWaitsForEmptyEventLoop.
let CALLBACKS;
const NO_CALLBACKS = 'ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. You need to modify '
  + 'this function to use a supported handler signature to use Node.js 24 or later. For more information see '
  + 'https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.';
const BEFORE_EXIT = 'The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a '
  + 'Promise that was never settled. For more information, see https://nodejs.org/docs/latest/api/process.html#exit-codes';

// How AWS's client marks a handler that streams; other tools look for the same symbols.
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const PRELUDE_TYPE = 'application/vnd.awslambda.http-integration-response';
// A server reads trailers of 4 KB at most (Go's net/http), both of them together.
const TRAILER_LIMIT = 3000;

// Fault is a failure of the runtime rather than of the handler, with AWS's name for it.
class Fault extends Error {
  constructor(name, message, stack) {
    super(message);
    Object.defineProperty(this, 'name', { value: name, configurable: true, writable: true }); // no member of its own in log lines
    if (stack) this.stack = stack;
  }
}

// Levels of the console, and their numbers in the type of a frame.
const LEVELS = { TRACE: 1, DEBUG: 2, INFO: 3, WARN: 4, ERROR: 5, FATAL: 6 };

// Where AWS's client keeps the request id; other tools look for the same symbol.
const REQUEST_ID = Symbol.for('aws.lambda.runtime.requestId');

// Log makes one event of each call of the console. lambda-init, and AWS, take events in frames from a descriptor of their
// own ($_LAMBDA_TELEMETRY_LOG_FD); elsewhere an event is a line of standard output.
class Log {
  constructor(env) {
    const fd = Number(env._LAMBDA_TELEMETRY_LOG_FD ?? NaN);
    delete env._LAMBDA_TELEMETRY_LOG_FD;
    this.fd = Number.isInteger(fd) && fd >= 0 && Log.isOurs(fd) ? fd : null;
    this.json = env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === 'JSON';
    this.least = LEVELS[env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()] ?? LEVELS.TRACE;
    this.tenant = undefined;
    this.used = new Set();
  }

  // isOurs says whether fd is standard output once more, or a file. A wrapper may have closed it, and the number be that of
  // something else now.
  static isOurs(fd) {
    try {
      const [frames, stdout] = [fs.fstatSync(fd), fs.fstatSync(1)];
      return frames.isFile() || (frames.dev === stdout.dev && frames.ino === stdout.ino);
    } catch {
      return false;
    }
  }

  // patch puts AWS's methods into the console.
  patch() {
    for (const level of Object.keys(LEVELS)) {
      console[level.toLowerCase()] = LEVELS[level] < this.least ? () => {} : (message, ...rest) => this.write(level, message, ...rest);
    }
    console.log = console.info;
    // Which of the two streams exist: making one takes time, and settle must not.
    for (const name of ['stdout', 'stderr']) {
      const { get, ...rest } = Object.getOwnPropertyDescriptor(process, name);
      if (!get) continue;
      const { used } = this;
      Object.defineProperty(process, name, { ...rest, get() {
        const stream = get.call(process);
        used.add(stream);
        return stream;
      } });
    }
  }

  write(level, message, ...rest) {
    const now = new Date();
    const id = globalThis[REQUEST_ID];
    const text = this.json
      ? this.object(now, id, level, message, rest)
      : `${now.toISOString()}\t${id}\t${level}\t${util.format(message, ...rest)}`;
    if (this.fd === null) {
      process.stdout.write(`${text.replace(/\n/g, '\r')}\n`);
      return;
    }
    const body = Buffer.from(text);
    const frame = Buffer.allocUnsafe(16 + body.length);
    frame.writeUInt32BE((0xa55a0000 | (this.json ? 2 : 3) | LEVELS[level] << 2) >>> 0, 0);
    frame.writeUInt32BE(body.length, 4);
    frame.writeBigInt64BE(BigInt(now.valueOf()) * 1000n, 8);
    body.copy(frame, 16);
    for (let at = 0; at < frame.length;) {
      try {
        at += fs.writeSync(this.fd, frame, at);
      } catch (error) {
        if (error.code !== 'EAGAIN') return; // nobody takes log lines any more
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
      }
    }
  }

  object(now, id, level, message, rest) {
    const line = { timestamp: now.toISOString(), level, requestId: id, tenantId: this.tenant || undefined };
    if (rest.length === 0) {
      line.message = message;
      try {
        return JSON.stringify(line, (_, value) => (value instanceof Error ? { ...errorMembers(value), ...value } : value));
      } catch {
        line.message = util.format(message);
        return JSON.stringify(line);
      }
    }
    line.message = util.format(message, ...rest);
    const error = rest.find((value) => value instanceof Error);
    return JSON.stringify(error ? { ...line, ...errorMembers(error) } : line);
  }

  // error reports what the function has thrown.
  error(kind, thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    if (this.json) this.write('ERROR', error);
    else this.write('ERROR', kind, `\t${formatError(error)}`);
  }

  // settle waits until what was written by process.stdout.write has left: it belongs before the answer.
  async settle() {
    for (const stream of this.used) {
      if (stream.writableLength > 0 && !stream.destroyed) await new Promise((resolve) => { stream.write('', resolve); });
    }
  }
}

// errorMembers is an error in AWS's JSON log lines.
function errorMembers(error) {
  return {
    errorType: error instanceof Fault ? error.name : error.constructor?.name ?? 'UnknownError',
    errorMessage: error.message,
    stackTrace: typeof error.stack === 'string' ? error.stack.split('\n') : [],
  };
}

// formatError is an error in AWS's log lines of text, its own members included.
function formatError(error) {
  try {
    return JSON.stringify(error, (_, value) => (value instanceof Error ? {
      errorType: value.name, errorMessage: value.message, code: value.code, ...value,
      stack: typeof value.stack === 'string' ? value.stack.split('\n') : value.stack,
    } : value));
  } catch {
    return JSON.stringify(describe(error));
  }
}

let log;

// configure sets what follows from the environment.
function configure(env) {
  // The runtime that the function asked for: this Node.js may stand in for another version.
  const version = /^AWS_Lambda_nodejs(\d+)\.x$/.exec(env.AWS_EXECUTION_ENV ?? '')?.[1] ?? process.versions.node.split('.')[0];
  CALLBACKS = Number(version) < 24;
  log = new Log(env);
}

// wait waits until lambda-init says on a socket whose this process is, and becomes as if it had been started so. It was started before
// its function was known, and is nobody's until then: see docs/lambda-init.md.
async function wait(fd) {
  await warm();
  fs.writeSync(fd, '\n');
  const data = fs.readFileSync(fd, 'utf8');
  fs.closeSync(fd);
  if (data === '') process.exit(0); // it will be nobody's
  const { args, env, cwd } = JSON.parse(data);
  for (const name of Object.keys(process.env)) delete process.env[name];
  for (const variable of env) {
    const at = variable.indexOf('=');
    if (at > 0) process.env[variable.slice(0, at)] = variable.slice(at + 1);
  }
  showEnvironment(Buffer.from(env.map((variable) => `${variable}\0`).join('')));
  process.argv.splice(2, Infinity, ...args.slice(args.indexOf(__filename) + 1));
  process.chdir(cwd);
  const { uptime } = process;
  const waited = uptime();
  process.uptime = () => uptime() - waited;
}

// showEnvironment puts an environment where the kernel has the one that this process was started with, for /proc/self/environ.
function showEnvironment(block) {
  try {
    const stat = fs.readFileSync('/proc/self/stat', 'latin1');
    // env_start and env_end (proc(5))
    const [start, end] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(47, 49).map(Number);
    if (block.length > end - start) return;
    const memory = fs.openSync('/proc/self/mem', 'r+');
    try {
      fs.writeSync(memory, Buffer.concat([block], end - start), 0, end - start, start);
    } finally {
      fs.closeSync(memory);
    }
  } catch {
    // A kernel that does not allow it: only this file would tell.
  }
}

// warm has Node.js do once what every start does, since much of it takes ten times as long for the first time: an invocation, by a
// Runtime API of its own, of a handler in a module that is in no file. Nothing of it is left.
async function warm() {
  searchNodePath();
  const { handler } = await import('data:text/javascript,export async function handler() { return null; }');
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}'));
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const api = new RuntimeApi(`127.0.0.1:${server.address().port}`);
  serialise(await invoke(handler, await api.next()));
  for (const name of ['crypto', 'https']) require(name); // what SDKs and most handlers load; functions cannot have others of these names
  const { socket } = api;
  api.socket = null;
  socket.resetAndDestroy(); // a connection that is closed in order is seen for a minute
  await new Promise((resolve) => { server.close(resolve); });
}

// RuntimeApi is one keep-alive connection to the Runtime API, used for one exchange at a time.
class RuntimeApi {
  constructor(address) {
    const colon = address.lastIndexOf(':');
    this.address = address;
    this.host = address.slice(0, colon).replace(/^\[|\]$/g, '') || '127.0.0.1';
    this.port = Number(address.slice(colon + 1));
    this.socket = null;
    this.waiting = null;
  }

  // next waits for an invocation: {headers, body}, header names in lower case.
  async next() {
    const answer = await this.request('GET', '/invocation/next');
    if (answer.status !== 200) throw new Error(`GET ${API}/invocation/next: status ${answer.status}: ${answer.body}`);
    return answer;
  }

  respond(id, body) {
    return this.request('POST', `/invocation/${id}/response`, body);
  }

  fail(where, error) {
    const type = String(error.errorType).replace(/[^\x20-\x7e]/g, '?');
    return this.request('POST', where, JSON.stringify(error), `Lambda-Runtime-Function-Error-Type: ${type}\r\n`);
  }

  async request(method, where, text, header = '') {
    const body = Buffer.from(text ?? '');
    let head = `${method} ${API}${where} HTTP/1.1\r\nHost: ${this.address}\r\nUser-Agent: esb-nodejs\r\n${header}`;
    if (method === 'POST') head += `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`;
    const message = Buffer.concat([Buffer.from(`${head}\r\n`, 'latin1'), body]);
    const reused = this.socket !== null;
    try {
      return await this.exchange(message);
    } catch (error) {
      // The server may have closed a connection that was idle for as long as the handler ran.
      if (!reused) throw error;
      return this.exchange(message);
    }
  }

  // openStream begins an answer that streams. It returns a promise of the Runtime API's word on the whole of it.
  openStream(id, contentType) {
    const answer = this.exchange(Buffer.from(`POST ${API}/invocation/${id}/response HTTP/1.1\r\nHost: ${this.address}\r\n`
      + `User-Agent: esb-nodejs\r\nContent-Type: ${contentType}\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n`
      + 'Transfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n', 'latin1'));
    this.socket.unref(); // what waits for the next piece is the handler's business
    return answer;
  }

  // writePiece calls back when the piece has left: the handler waits for a Runtime API that takes it slowly.
  writePiece(data, callback) {
    const { socket } = this;
    if (socket === null) {
      callback(new Error('the Runtime API closed the connection'));
      return;
    }
    socket.cork();
    socket.write(`${data.length.toString(16)}\r\n`, 'latin1');
    socket.write(data);
    socket.write('\r\n', 'latin1', callback);
    socket.uncork();
  }

  // closeStream ends a stream, with error, as describe made it, in its trailers.
  closeStream(error) {
    if (this.socket === null) return;
    this.socket.ref();
    let trailers = '';
    if (error) {
      const encode = (e) => Buffer.from(JSON.stringify(e)).toString('base64');
      let body = encode(error);
      if (body.length > TRAILER_LIMIT) body = encode({ ...error, errorMessage: error.errorMessage.slice(0, 500), trace: [] });
      const type = String(error.errorType).replace(/[^\x20-\x7e]/g, '?').slice(0, 200);
      trailers = `Lambda-Runtime-Function-Error-Type: ${type}\r\nLambda-Runtime-Function-Error-Body: ${body}\r\n`;
    }
    this.socket.write(`0\r\n${trailers}\r\n`, 'latin1');
  }

  exchange(message) {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject, reader: new AnswerReader() };
      if (this.socket === null) this.connect();
      this.socket.ref();
      this.socket.write(message);
    });
  }

  connect() {
    const socket = net.connect({ host: this.host, port: this.port, noDelay: true });
    const lost = (error) => {
      if (this.socket !== socket) return;
      this.socket = null;
      socket.destroy();
      this.settle('reject', error ?? new Error('the Runtime API closed the connection'));
    };
    socket.on('error', lost);
    socket.on('close', () => lost());
    socket.on('data', (data) => {
      const answer = this.waiting?.reader.add(data);
      if (!answer) return;
      socket.unref(); // while the handler runs, only its own work keeps the event loop alive
      if (/^close$/i.test(answer.headers.connection ?? '')) {
        this.socket = null;
        socket.destroy();
      }
      this.settle('resolve', answer);
    });
    this.socket = socket;
  }

  settle(how, value) {
    const { waiting } = this;
    this.waiting = null;
    waiting?.[how](value);
  }
}

// AnswerReader collects one HTTP/1.1 answer from pieces of a stream.
class AnswerReader {
  constructor() {
    this.pieces = [];
    this.size = 0;
    this.need = 0;
    this.head = null;
  }

  // add returns {status, headers, body} once the answer is complete, else undefined.
  add(data) {
    this.pieces.push(data);
    this.size += data.length;
    if (this.size < this.need) return undefined;
    let all = Buffer.concat(this.pieces, this.size);
    if (this.head === null) {
      const end = all.indexOf('\r\n\r\n');
      if (end < 0) return undefined;
      const [first, ...lines] = all.toString('latin1', 0, end).split('\r\n');
      const headers = {};
      for (const line of lines) {
        const colon = line.indexOf(':');
        headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
      }
      this.head = { status: Number(first.split(' ')[1]), headers };
      all = all.subarray(end + 4);
    }
    this.pieces = [all];
    this.size = all.length;
    if (/^chunked$/i.test(this.head.headers['transfer-encoding'] ?? '')) return this.chunked(all);
    this.need = Number(this.head.headers['content-length'] ?? 0);
    return this.size < this.need ? undefined : { ...this.head, body: all };
  }

  // chunked takes the whole chunks off the stream and keeps the rest for the next piece.
  chunked(all) {
    this.chunks ??= [];
    for (let at = 0; ;) {
      const end = all.indexOf('\r\n', at);
      const size = end < 0 ? NaN : parseInt(all.toString('latin1', at, end), 16);
      if (size === 0 && all.indexOf('\r\n\r\n', at) >= 0) return { ...this.head, body: Buffer.concat(this.chunks) };
      const next = end + 2 + size + 2;
      if (!size || all.length < next) {
        this.pieces = [all.subarray(at)];
        this.size = all.length - at;
        this.need = size ? next - at : 0;
        return undefined;
      }
      this.chunks.push(all.subarray(end + 2, next - 2));
      at = next;
    }
  }
}

// ResponseStream is what a handler that streams writes to.
class ResponseStream extends Writable {
  constructor(api, id, highWaterMark) {
    super({ highWaterMark });
    this.api = api;
    this.id = id;
    this.type = 'application/octet-stream';
    this.answer = null; // a promise, from the first byte on
    this.on('error', () => {}); // the invocation sees it too; without a listener it would end the process
  }

  setContentType(type) {
    if (this.answer) throw new Fault('Runtime.InvalidStreamingOperation', 'Cannot set content-type, too late.');
    if (/[^\t\x20-\x7e]/.test(type)) throw new Fault('Runtime.InvalidStreamingOperation', 'A content-type must be printable ASCII.');
    this.type = String(type);
  }

  write(chunk, ...rest) {
    return super.write(ResponseStream.plain(chunk), ...rest);
  }

  end(chunk, ...rest) {
    return typeof chunk === 'function' || chunk === undefined || chunk === null
      ? super.end(chunk, ...rest)
      : super.end(ResponseStream.plain(chunk), ...rest);
  }

  // plain makes JSON of what is neither text nor bytes, as AWS does.
  static plain(chunk) {
    return typeof chunk === 'string' || chunk instanceof Uint8Array ? chunk : JSON.stringify(chunk);
  }

  _write(chunk, encoding, callback) {
    const data = this.answer ? chunk : Buffer.concat([this.begin(), chunk]);
    if (data.length === 0) callback(); // an empty chunk would be the last one
    else this.api.writePiece(data, callback);
  }

  _final(callback) {
    const finish = (error) => {
      if (error) {
        callback(error);
        return;
      }
      this.api.closeStream();
      this.answer.then(() => callback(), callback);
    };
    if (this.answer) finish();
    else this._write(Buffer.alloc(0), undefined, finish);
  }

  // begin sends the head of the answer, and returns what stands before the first byte (HttpResponseStream.from).
  begin() {
    this.answer = this.api.openStream(this.id, this.type);
    this.answer.catch((error) => this.destroy(error));
    const before = [];
    this._onBeforeFirstWrite?.((chunk) => before.push(Buffer.from(chunk)));
    return Buffer.concat(before);
  }

  // fail ends the stream with error, which describe made.
  async fail(error) {
    this.destroy();
    if (!this.answer) {
      await this.api.fail(`/invocation/${this.id}/error`, error);
      return;
    }
    this.api.closeStream(error);
    await this.answer.catch(() => {});
  }
}

// What AWS gives to the functions of its Node.js runtimes as a global.
globalThis.awslambda = {
  streamifyResponse(handler, options) {
    handler[STREAMING] = 'response';
    if (options?.highWaterMark !== undefined) handler[HIGH_WATER_MARK] = Number(options.highWaterMark);
    return handler;
  },
  HttpResponseStream: class HttpResponseStream {
    // from makes an HTTP answer of a stream: metadata is {statusCode, headers, multiValueHeaders, cookies}.
    static from(stream, metadata) {
      stream.setContentType(PRELUDE_TYPE);
      const prelude = JSON.stringify(metadata);
      stream._onBeforeFirstWrite = (write) => {
        write(prelude);
        write(new Uint8Array(8));
      };
      return stream;
    }
  },
};

// describe makes AWS's error object of anything that was thrown. No error type may break a header: AWS, too, encodes DEL.
function describe(error) {
  const plain = (text) => String(text).replaceAll('\x7f', '%7F');
  try {
    if (!(util.types.isNativeError(error) || error instanceof Error || (error?.name && error.message && error.stack))) {
      return { errorType: typeof error, errorMessage: String(error), trace: [] };
    }
    return {
      errorType: plain(error.name),
      errorMessage: plain(error.message),
      trace: plain(error.stack ?? '').split('\n'),
    };
  } catch {
    return { errorType: 'handled', trace: [],
      errorMessage: 'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack' };
  }
}

// load imports the handler's module and returns its function; throws Fault with AWS's messages.
async function load(root, handler) {
  if (handler.includes('..')) {
    throw new Fault('Runtime.MalformedHandlerName',
      `'${handler}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`);
  }
  const { dir, base } = path.parse(handler);
  const match = base.match(/^([^.]*)\.(.+)$/);
  if (!match) throw new Fault('Runtime.MalformedHandlerName', 'Bad handler');
  const [, module, name] = match;
  let exported;
  try {
    exported = await importModule(root, dir, module);
  } catch (error) {
    if (error instanceof SyntaxError) throw new Fault('Runtime.UserCodeSyntaxError', String(error), error.stack);
    // ERR_MODULE_NOT_FOUND, of import, stays what it is (AWS: an "Error").
    if (error?.code === 'MODULE_NOT_FOUND') throw new Fault('Runtime.ImportModuleError', String(error), error.stack);
    throw error;
  }
  const find = (where) => name.split('.').reduce((found, key) => found?.[key], where);
  // import() of a CommonJS module may keep its exports below default.
  const found = find(exported) ?? find(exported?.default);
  if (!found) throw new Fault('Runtime.HandlerNotFound', `${handler} is undefined or not exported`);
  if (typeof found !== 'function') throw new Fault('Runtime.HandlerNotFound', `${handler} is not a function`);
  if (found[STREAMING] && found[STREAMING] !== 'response') {
    throw new Fault('Runtime.MalformedStreamingHandler', 'Only response streaming is supported.');
  }
  if (!CALLBACKS && found.length >= 3 && !found[STREAMING]) throw new Fault('Runtime.CallbackHandlerDeprecated', NO_CALLBACKS);
  return found;
}

async function importModule(root, dir, module) {
  const file = path.resolve(root, dir, module);
  const candidates = [file, `${file}.js`, `${file}.mjs`, `${file}.cjs`];
  const existing = candidates.find((f) => fs.statSync(f, { throwIfNoEntry: false })?.isFile());
  if (existing?.endsWith('.mjs') || (existing?.endsWith('.js') && isEsmPackage(existing, root))) {
    return import(require('url').pathToFileURL(existing).href);
  }
  // Else a package: wrappers in layers are named so.
  return require(existing ?? require.resolve(module, { paths: [root, path.join(root, dir)] }));
}

// isEsmPackage tells whether the nearest package.json, up to root, says "type": "module".
function isEsmPackage(file, root) {
  for (let dir = path.dirname(file); ; dir = path.dirname(dir)) {
    const manifest = path.join(dir, 'package.json');
    if (fs.existsSync(manifest)) return JSON.parse(fs.readFileSync(manifest, 'utf8')).type === 'module';
    if (dir === path.resolve(root) || dir === path.dirname(dir)) return false;
  }
}

// searchNodePath lets import find what require finds in the folders of NODE_PATH: the SDK, and packages of layers. Node.js
// alone does not; AWS's does ("The Node.js 18.x runtime for Lambda searches the folders listed in NODE_PATH when loading
// ES modules", AWS compute blog). What is found otherwise comes first, as with require.
function searchNodePath() {
  const { createRequire, registerHooks, isBuiltin } = require('module');
  const { pathToFileURL } = require('url');
  if (registerHooks === undefined) return; // Node.js before 22.15
  const folders = (process.env.NODE_PATH ?? '').split(path.delimiter).filter((f) => path.basename(f) === 'node_modules');
  registerHooks({
    resolve(specifier, context, next) {
      try {
        return next(specifier, context);
      } catch (error) {
        const bare = !/^(?:[./#]|[a-z][a-z0-9+.-]*:)/i.test(specifier) && !isBuiltin(specifier);
        if (error?.code !== 'ERR_MODULE_NOT_FOUND' || !bare) throw error;
        for (const folder of folders) {
          try {
            // As if a file beside the folder asked for it: then the folder is where Node.js looks first.
            return next(specifier, { ...context, parentURL: pathToFileURL(path.join(folder, '..', 'import')).href });
          } catch (other) {
            if (other?.code !== 'ERR_MODULE_NOT_FOUND') throw other;
          }
        }
        let found;
        try {
          found = createRequire('/').resolve(specifier); // folders that are no node_modules: /var/task, /var/runtime
        } catch {
          throw error;
        }
        return next(pathToFileURL(found).href, context);
      }
    },
  });
}

// contextOf makes the second argument of a handler (AWS: Lambda context object in Node.js).
function contextOf(headers, finish) {
  const deadline = Number(headers['lambda-runtime-deadline-ms'] ?? 0);
  const json = (name) => {
    // Headers are bytes on the wire: a client context may hold UTF-8.
    const value = headers[name] && Buffer.from(headers[name], 'latin1').toString();
    return value ? JSON.parse(value) : undefined;
  };
  return {
    ...(CALLBACKS && {
      callbackWaitsForEmptyEventLoop: true,
      done: (error, value) => finish(error, value, true),
      fail: (error) => finish(error ?? 'handled', undefined, true),
      succeed: (value) => finish(null, value, true),
    }),
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: json('lambda-runtime-client-context'),
    identity: json('lambda-runtime-cognito-identity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
  };
}

// invoke runs one invocation. It resolves with the handler's result and rejects with what the handler threw.
function invoke(handler, { headers, body }) {
  return new Promise((resolve, reject) => {
    const settle = (error, value) => {
      process.removeListener('beforeExit', onIdle);
      if (error !== null && error !== undefined) reject(error);
      else resolve(value);
    };
    let async = false;
    let called;
    // finish is the callback: unless told otherwise, an answer waits until the event loop is empty; an error does not.
    const finish = (error, value, now) => {
      if (called) return;
      called = [error, value];
      if (now || !context.callbackWaitsForEmptyEventLoop || (error !== undefined && error !== null)) settle(error, value);
    };
    const onIdle = () => {
      if (called) settle(...called);
      else if (async) settle(new Fault('Runtime.NodeJsExit', BEFORE_EXIT));
      else settle(null, null);
    };
    const context = contextOf(headers, finish);
    process.once('beforeExit', onIdle);
    let event;
    try {
      event = JSON.parse(body.toString());
    } catch (error) {
      settle(new Fault('Runtime.UnmarshalError', `Unable to unmarshal input: ${error.message}`));
      return;
    }
    try {
      const result = CALLBACKS ? handler(event, context, (error, value) => finish(error, value, false)) : handler(event, context);
      if (typeof result?.then === 'function') {
        async = true;
        result.then((value) => settle(null, value), (error) => settle(error ?? new Error(String(error))));
      } else if (!CALLBACKS || (handler.length < 3 && result !== undefined)) {
        settle(null, result);
      }
    } catch (error) {
      settle(error ?? new Error(String(error)));
    }
  });
}

// runStream runs one invocation of a handler that streams, until both the handler and its stream have ended.
function runStream(handler, { headers, body }, out) {
  return new Promise((resolve, reject) => {
    let returned = false;
    const settle = (error) => {
      process.removeListener('beforeExit', onIdle);
      if (error !== undefined) reject(error);
      else resolve();
    };
    const onIdle = () => settle(new Fault('Runtime.NodeJsExit', returned
      ? 'The handler has returned and never ended its response stream: call responseStream.end()' : BEFORE_EXIT));
    process.once('beforeExit', onIdle);
    out.once('error', (error) => settle(error));
    out.once('finish', () => { if (returned) settle(); });
    let event;
    try {
      event = JSON.parse(body.toString());
    } catch (error) {
      settle(new Fault('Runtime.UnmarshalError', `Unable to unmarshal input: ${error.message}`));
      return;
    }
    try {
      const result = handler(event, out, contextOf(headers, () => {}));
      if (typeof result?.then !== 'function') {
        throw new Fault('Runtime.MalformedStreamingHandler', 'Streaming does not support non-async handlers.');
      }
      result.then(() => {
        returned = true;
        if (out.writableFinished) settle();
      }, (error) => settle(error ?? new Error(String(error))));
    } catch (error) {
      settle(error ?? new Error(String(error)));
    }
  });
}

// answerStream runs an invocation of a handler that streams, and reports how it failed.
async function answerStream(api, handler, invocation, id) {
  const out = new ResponseStream(api, id, handler[HIGH_WATER_MARK]);
  let answer;
  try {
    await runStream(handler, invocation, out);
    answer = await out.answer;
  } catch (error) {
    log.error('Invoke Error', error);
    await log.settle();
    const described = describe(error);
    // Nobody can be told of what went wrong behind the end of the stream.
    if (!out.writableFinished) await out.fail(described);
    return;
  }
  if (answer.status >= 300) log.write('ERROR', `the stream was refused with status ${answer.status}: ${answer.body}`);
}

// serialise makes the body of an answer; what JSON cannot express is an error, undefined is null.
function serialise(value) {
  try {
    return JSON.stringify(value === undefined ? null : value) ?? 'null';
  } catch {
    throw new Fault(CALLBACKS ? 'Error' : 'Runtime.JSONStringifyError', 'Unable to stringify response body');
  }
}

async function main() {
  const waiting = process.env._ESB_WAIT_FD;
  delete process.env._ESB_WAIT_FD;
  if (waiting) await wait(Number(waiting));
  configure(process.env);
  const address = process.env.AWS_LAMBDA_RUNTIME_API;
  if (!address) {
    process.stderr.write('AWS_LAMBDA_RUNTIME_API is not set: this image runs below lambda-init or another Runtime API (host:port)\n');
    process.exit(1);
  }
  const name = process.env._HANDLER || (process.argv[2] ?? '');
  process.env._HANDLER = name;
  log.patch();
  const api = new RuntimeApi(address);
  let where = '/init/error';
  // die reports what no handler caught, as AWS does, and ends the process with AWS's exit codes.
  const die = async (kind, error, code) => {
    const described = describe(error);
    log.error(kind, error);
    try {
      await log.settle();
      const last = new RuntimeApi(address); // the usual connection may be in use
      await last.fail(where, described);
    } finally {
      process.exit(code);
    }
  };
  process.on('uncaughtException', (error) => die('Uncaught Exception', error, 129));
  process.on('unhandledRejection', (reason, promise) => die('Unhandled Promise Rejection',
    Object.assign(new Fault('Runtime.UnhandledPromiseRejection', String(reason), reason?.stack), { reason, promise }), 128));
  process.on('SIGTERM', () => process.exit(0));

  if (!waiting) searchNodePath();
  let handler;
  try {
    handler = await load(process.env.LAMBDA_TASK_ROOT ?? '/var/task', name);
  } catch (error) {
    await die('Init Error', error, 1);
  }
  for (;;) {
    const invocation = await api.next();
    const id = invocation.headers['lambda-runtime-aws-request-id'];
    const trace = invocation.headers['lambda-runtime-trace-id'];
    where = `/invocation/${id}/error`;
    globalThis[REQUEST_ID] = id;
    log.tenant = invocation.headers['lambda-runtime-aws-tenant-id'];
    if (trace) process.env._X_AMZN_TRACE_ID = trace;
    else delete process.env._X_AMZN_TRACE_ID;
    if (handler[STREAMING] === 'response') {
      await answerStream(api, handler, invocation, id);
      continue;
    }
    let body;
    try {
      body = serialise(await invoke(handler, invocation));
    } catch (error) {
      log.error('Invoke Error', error);
      await log.settle();
      await api.fail(where, describe(error));
      continue;
    }
    await log.settle();
    const answer = await api.respond(id, body);
    // The Runtime API ends an invocation by itself when it refuses the answer (413: too large).
    if (answer.status >= 300) log.write('ERROR', `the answer was refused with status ${answer.status}: ${answer.body}`);
  }
}

main().catch((error) => {
  process.stderr.write(`the Runtime API failed: ${error.stack}\n`);
  process.exit(1);
});
