// The tests that need Node.js alone. The others run programs that scripts/tools.sh brings, or the kubectl
// and helm of Linux.
const all = require('../jest.config.js');

module.exports = {
  ...all,
  rootDir: '..',
  testPathIgnorePatterns: [
    ...all.testPathIgnorePatterns,
    '<rootDir>/test/(script|chart|e2e/run|agent/describe|docs|examples|gitops|monitoring)\\b',
  ],
};
