'use strict';
const fastify = require('fastify');
const adapter = require('@fastify/aws-lambda');

const app = fastify();
const schema = { body: { type: 'object', required: ['n'], properties: { n: { type: 'integer' } } } };
app.get('/web/fastify/hello', async (request) => ({ hello: request.query.name, id: request.awsLambda.context.awsRequestId }));
app.post('/web/fastify/double', { schema }, async (request, reply) => reply.code(201).header('x-doubled', 'yes').send({ n: request.body.n * 2 }));
exports.handler = adapter(app);
