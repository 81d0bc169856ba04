const { delimiter, join } = require('node:path');

// promtool and the node exporter, which scripts/tools.sh brings.
process.env.PATH = [join(__dirname, '.cache/tools/programs'), process.env.PATH].join(delimiter);

// Manifests and script. The kernel test has a configuration of its own (test/kernel), and so has the
// package's (test/package).
module.exports = {
  testEnvironment: 'node',
  transform: { '^.+\\.ts$': 'ts-jest' },
  // A build leaves lib/*.js beside lib/*.ts; the tests must not test the last build.
  moduleFileExtensions: ['ts', 'js', 'json', 'node'],
  testPathIgnorePatterns: ['/node_modules/', '/.cache/', '/test/kernel/', '/test/package/'],
  // Most of the tests of the script wait, for ticks and time limits of the agent, and need little CPU.
  maxWorkers: 5,
};
