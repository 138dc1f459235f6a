exports.handler = (event, context, callback) => callback(null, 'called back');
