// Manifests and script. The kernel test has a configuration of its own (test/kernel), and so has the
// package's (test/package).
module.exports = {
  testEnvironment: 'node',
  transform: { '^.+\\.ts$': 'ts-jest' },
  // A build leaves lib/*.js beside lib/*.ts; the tests must not test the last build.
  moduleFileExtensions: ['ts', 'js', 'json', 'node'],
  testPathIgnorePatterns: ['/node_modules/', '/.cache/', '/test/kernel/', '/test/package/'],
};
