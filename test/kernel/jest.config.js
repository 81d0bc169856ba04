// A virtual machine at a time for each file, whose tests run in order, and four files at once. What waits has a limit of
// its own; a whole test takes as long as the machine is slow.
module.exports = {
  testEnvironment: 'node',
  rootDir: __dirname,
  testPathIgnorePatterns: ['/(long|real-systemd).test.ts$'],
  transform: {
    '^.+\\.ts$': ['ts-jest', { tsconfig: '<rootDir>/../../tsconfig.json' }],
  },
  moduleFileExtensions: ['ts', 'js', 'json', 'node'],
  maxWorkers: 4,
  testTimeout: 3_600_000,
  bail: false,
};
