// A Hono application: whole answers, and one that streams.
import { Hono } from 'hono';
import { handle, streamHandle } from 'hono/aws-lambda';
import { streamSSE } from 'hono/streaming';

const app = new Hono();
app.get('/web/hono/hello/:name', (c) => c.json({ hello: c.req.param('name'), q: c.req.query('q') ?? null }));
app.post('/web/hono/echo', async (c) => c.text(await c.req.text(), 202, { 'x-echo': 'yes' }));
app.get('/web/hono/events', (c) => streamSSE(c, async (stream) => {
  for (let i = 1; i <= 3; i++) await stream.writeSSE({ data: `event ${i}`, id: String(i) });
}));

export const whole = handle(app);
export const streamed = streamHandle(app);
