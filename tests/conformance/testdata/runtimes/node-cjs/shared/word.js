exports.word = 'shared';
