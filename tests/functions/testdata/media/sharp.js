'use strict';
const sharp = require('sharp');

// A red picture of the size that is asked for, made smaller, as PNG.
exports.handler = async (event) => {
  const { width = '400', height = '300' } = event.queryStringParameters ?? {};
  const image = sharp({ create: { width: Number(width), height: Number(height), channels: 3, background: 'red' } });
  const small = await image.jpeg().toBuffer().then((jpeg) => sharp(jpeg).resize(Number(width) / 4).png().toBuffer());
  return { statusCode: 200, headers: { 'content-type': 'image/png' }, isBase64Encoded: true, body: small.toString('base64') };
};
