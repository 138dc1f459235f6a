// Logs as AWS's console does, and answers as the event says.
console.log('at init');
exports.handler = async (event) => {
  if (event === 'raise') throw new RangeError('as asked');
  if (event === 'big integer') return 1n;
  console.log('two\nlines', { n: 1 });
  console.debug('fine');
  console.error(new TypeError('logged'));
  process.stdout.write('raw\n');
  return null;
};
