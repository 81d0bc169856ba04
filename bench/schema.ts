/** What bench/results.json holds. */

/** The tools that are compared, the agent first. */
export const TOOLS = ['agent', 'limit', 'poll-0.1', 'poll-1', 'poll-60'] as const;

export type Tool = (typeof TOOLS)[number];

/** Sorted microseconds. What was not over when it was last seen is in `pending`, with its age. */
export interface Latencies {
  readonly microseconds: number[];
  readonly pending: number[];
}

export interface ToolResults {
  readonly idle: {
    readonly cpuSecondsPerMinute: number;
    readonly wakeupsPerMinute: number;
    readonly requestsPerMinute: number;
    readonly requestBytesPerMinute: number;
    readonly pssBytes: number;
    readonly currentBytes: number;
    readonly peakBytes: number;
  };
  readonly drift: {
    readonly cpuSecondsPerThousand: number;
    readonly latencies: Latencies;
  };
  readonly starts: {
    readonly count: number;
    readonly rightAtFirstInstruction: number;
    readonly cpuSecondsPerThousand: number;
    readonly latencies: Latencies;
  };
}

/** What is timed with the CPU of a node as well. */
export type Timed = Pick<ToolResults, 'drift' | 'starts'>;

export interface SizeResults {
  readonly pods: number;
  readonly containers: number;
  readonly tools: Record<Tool, ToolResults>;
}

export interface Results {
  readonly environment: {
    /** SHA-256 of the files in lib/agent, in the order of their names. */
    readonly script: string;
    readonly kernel: string;
    readonly busybox: string;
    readonly qemu: string;
    readonly hostCpus: number;
    readonly hostLoadBefore: number[];
    readonly hostLoadAfter: number[];
    readonly secondsBetweenStarts: number;
    readonly driftsPerSecond: number;
    /**
     * How many times as long as where a start was measured a command took, before the starts at each size
     * and before what has the CPU of a node: pauses, steps of a start and limit were as many times as long.
     */
    readonly slowness: number[];
  };
  readonly sizes: SizeResults[];
  /** At the largest size, with ten times as much CPU. */
  readonly withCpuOfNode: Record<Tool, Timed>;
}

/** How long each process took, in the order of the runs, which took turns. */
export interface Turns {
  readonly plainSeconds: number[];
  readonly oursSeconds: number[];
}

/** What bench/synth.json holds. */
export interface SynthResults {
  readonly environment: {
    readonly node: string;
    readonly hostCpus: number;
    readonly hostLoadBefore: number[];
    readonly hostLoadAfter: number[];
  };
  readonly synth: (Turns & { readonly workloads: number })[];
  readonly import: Turns;
}

/** The latency below which this share of the events is; infinite among those that were not over. */
export function quantile({ microseconds, pending }: Latencies, share: number): number {
  const rank = Math.max(1, Math.ceil(share * (microseconds.length + pending.length)));
  return microseconds[rank - 1] ?? Infinity;
}
