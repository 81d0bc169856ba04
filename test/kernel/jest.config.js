// One virtual machine for all tests of a file: they run in order, each within its own time limit. Two
// machines at once would slow each other down.
module.exports = {
  testEnvironment: 'node',
  rootDir: __dirname,
  transform: {
    '^.+\\.ts$': ['ts-jest', { tsconfig: '<rootDir>/../../tsconfig.json' }],
  },
  maxWorkers: 1,
  testTimeout: 400_000,
  bail: false,
};
