'use strict';
// Says which process answers, so that a cold start can be told from a warm one.

const instance = require('node:crypto').randomBytes(8).toString('hex');

exports.handler = async (event) => ({
  statusCode: 200,
  body: JSON.stringify({ instance, message: JSON.parse(event.body).message }),
});
