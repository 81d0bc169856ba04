/** Random numbers that a seed repeats (mulberry32). */
export class Random {
  private state: number;

  public constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** From 0 up to, but not including, the limit. */
  public below(limit: number): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) / 4294967296) * limit;
  }

  public int(limit: number): number {
    return Math.floor(this.below(limit));
  }

  public chance(share: number): boolean {
    return this.below(1) < share;
  }

  public pick<T>(from: readonly T[]): T {
    return from[this.int(from.length)] as T;
  }

  /** A small number most of the time, now and then one near the limit. */
  public size(limit: number): number {
    return Math.floor(limit ** this.below(1));
  }

  public times<T>(count: number, make: (index: number) => T): T[] {
    return Array.from({ length: count }, (_, index) => make(index));
  }

  public text(alphabet: string, length: number): string {
    return this.times(length, () => alphabet[this.int(alphabet.length)]).join('');
  }

  public hex(length: number): string {
    return this.text('0123456789abcdef', length);
  }

  public uid(): string {
    return [8, 4, 4, 4, 12].map((length) => this.hex(length)).join('-');
  }

  public seed(): number {
    return this.int(2 ** 31);
  }
}
