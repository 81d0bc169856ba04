// Manifests and script. The kernel test has a configuration of its own (test/kernel).
module.exports = {
  testEnvironment: 'node',
  transform: { '^.+\\.ts$': 'ts-jest' },
  testPathIgnorePatterns: ['/node_modules/', '/.cache/', '/test/kernel/'],
};
