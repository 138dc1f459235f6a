'use strict';
exports.handler = async (event, context) => ({ event, function: context.functionName, request: context.awsRequestId });
