import { PassThrough } from 'node:stream';

import { Progress } from '../../e2e/progress';

// What a terminal gets to see; without one, that is in run.test.ts.

/** A terminal, and all that was written to it. */
function terminal(columns: number): [NodeJS.WriteStream, () => string] {
  let text = '';
  const stream = new PassThrough();
  stream.on('data', (data: Buffer) => (text += data.toString()));
  return [
    Object.assign(stream, { isTTY: true, columns }) as unknown as NodeJS.WriteStream,
    () => text,
  ];
}

const ERASE = '\r\x1b[K';

test('on a terminal there is one line, which is never longer than the terminal is wide', () => {
  const [stream, written] = terminal(20);
  const progress = new Progress(stream);
  progress.show('1 of 60 s');
  progress.show('2 of 60 s: kills survived on 2 of 2 nodes');
  expect(written()).toBe(`${ERASE}1 of 60 s${ERASE}2 of 60 s: kills su`);
});

test('what is to stay takes the place of that line, and at the end nothing of it is left', () => {
  const [stream, written] = terminal(80);
  const progress = new Progress(stream);
  progress.show('1 of 60 s');
  progress.say('context test');
  progress.show('2 of 60 s');
  progress.clear();
  expect(written()).toBe(`${ERASE}1 of 60 s${ERASE}context test\n${ERASE}2 of 60 s${ERASE}`);
});

test('a terminal that is closed ends nothing', () => {
  const [stream] = terminal(80);
  const progress = new Progress(stream);
  expect(() => stream.emit('error', new Error('EIO'))).not.toThrow();
  progress.show('3 of 60 s');
});
