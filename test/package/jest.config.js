// The package as npm would publish it. Needs the npm registry, so `npm test` leaves it out.
module.exports = {
  ...require('../../jest.config.js'),
  rootDir: __dirname,
  transform: {
    '^.+\\.ts$': ['ts-jest', { tsconfig: '<rootDir>/../../tsconfig.json' }],
  },
  testPathIgnorePatterns: ['/node_modules/'],
  testTimeout: 300_000,
};
