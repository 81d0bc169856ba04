// What takes too long for every change: npm run test:long.
module.exports = {
  ...require('./jest.config.js'),
  testPathIgnorePatterns: [],
  testMatch: ['<rootDir>/long.test.ts', '<rootDir>/real-systemd.test.ts'],
};
