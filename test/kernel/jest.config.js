// One virtual machine for all tests: they run in order, each within its own time limit.
module.exports = {
  testEnvironment: 'node',
  rootDir: __dirname,
  transform: {
    '^.+\\.ts$': ['ts-jest', { tsconfig: '<rootDir>/../../tsconfig.json' }],
  },
  testTimeout: 400_000,
  bail: false,
};
