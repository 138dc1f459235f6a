'use strict';
// lambda-hello-node: POST {"name": "x"} answers {"message": "hello x", "runtime": "nodejs24.x"}.

const runtime = `nodejs${process.versions.node.split('.')[0]}.x`;

// Greets the name in the request's JSON body, the world when there is none.
exports.handler = async (event) => {
  let given;
  try {
    given = parse(event);
  } catch (error) {
    return answer(400, { message: error.message });
  }
  return answer(200, { message: `hello ${given.name || 'world'}`, runtime });
};

// The JSON object in the body of an API Gateway event; throws an Error that says what is wrong with the body.
function parse(event) {
  const body = event.isBase64Encoded ? Buffer.from(event.body || '', 'base64').toString() : event.body;
  let given;
  try {
    given = JSON.parse(body || '{}');
  } catch {
    throw new Error('the request body must be JSON');
  }
  if (given === null || typeof given !== 'object' || Array.isArray(given)) {
    throw new Error('the request body must be a JSON object');
  }
  return given;
}

function answer(statusCode, body) {
  return { statusCode, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
}
