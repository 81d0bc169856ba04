// One virtual machine for all tests: they run in order, each within its own time limit.
module.exports = {
  testEnvironment: 'node',
  rootDir: __dirname,
  transform: {
    '^.+\\.ts$': ['ts-jest', { isolatedModules: true, tsconfig: '<rootDir>/../../tsconfig.json' }],
  },
  testTimeout: 120_000,
  bail: false,
};
