// One virtual machine for all tests of a file: they run in order. Two machines at once would slow each
// other down. What waits has a limit of its own; a whole test takes as long as the machine is slow.
module.exports = {
  testEnvironment: 'node',
  rootDir: __dirname,
  testPathIgnorePatterns: ['/(long|real-systemd).test.ts$'],
  transform: {
    '^.+\\.ts$': ['ts-jest', { tsconfig: '<rootDir>/../../tsconfig.json' }],
  },
  moduleFileExtensions: ['ts', 'js', 'json', 'node'],
  maxWorkers: 1,
  testTimeout: 3_600_000,
  bail: false,
};
