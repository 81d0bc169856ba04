/** What is going on: one line that changes, or lines where there is no terminal. */
export class Progress {
  private last = '';

  public constructor(private readonly stream: NodeJS.WriteStream) {
    // A terminal that was closed must not keep us from cleaning up.
    stream.on('error', () => undefined);
  }

  /** For as long as nothing else is shown. */
  public show(text: string): void {
    if (this.stream.isTTY) {
      // Longer than the terminal is wide, it could not be erased.
      this.stream.write(`\r\x1b[K${text.slice(0, (this.stream.columns || 80) - 1)}`);
    } else if (text !== this.last) {
      this.stream.write(`${text}\n`);
    }
    this.last = text;
  }

  /** To stay. */
  public say(text: string): void {
    this.clear();
    this.stream.write(`${text}\n`);
  }

  public clear(): void {
    if (this.stream.isTTY) {
      this.stream.write('\r\x1b[K');
    }
  }
}
