/** What bench/results.json holds. */

/** The tools that are compared: the agent, the loop of one second, the C program. */
export const TOOLS = ['agent', 'poll', 'limit'] as const;

/** Ended pods with the label that the API server has in one minute. */
export const ENDED_PODS = 3000;

export type Tool = (typeof TOOLS)[number];

/** Sorted microseconds. What was not over when it was last seen is in `pending`, with its age. */
export interface Latencies {
  readonly microseconds: number[];
  readonly pending: number[];
}

/** A minute of a tool's container, its probes included. */
export interface Minute {
  readonly cpuSeconds: number;
  /** This and the next: the median of several looks. */
  readonly processes: number;
  readonly currentBytes: number;
  readonly requests: number;
}

export interface Starts {
  readonly count: number;
  readonly rightAtFirstInstruction: number;
  readonly cpuSeconds: number;
}

export interface ToolResults {
  readonly idle: Minute;
  /** Not measured where there is no container. */
  readonly drift?: Latencies;
  readonly starts?: Starts;
}

export interface Results {
  readonly environment: {
    /** The name of the ConfigMap, which has a hash of the script at its end. */
    readonly script: string;
    readonly kernel: string;
    readonly busybox: string;
    readonly qemu: string;
    readonly hostCpus: number;
    readonly hostLoadBefore: number[];
    readonly hostLoadAfter: number[];
    /** Milliseconds that the guest takes to start a program, which are 0.6 where it is not emulated. */
    readonly millisecondsOfACommand: number;
    readonly secondsBetweenStarts: number;
    readonly driftsPerSecond: number;
  };
  readonly sizes: { readonly pods: number; readonly tools: Record<Tool, ToolResults> }[];
  /** A minute of the agent beside ended pods with the label; nothing else is opted in. */
  readonly ended: Minute;
  /** A minute of the agent with one pod that the kernel kills processes of all the time. */
  readonly killed: Minute & { readonly kills: number };
  /** memory.peak of the agent's container after it was told of a pod with 1.4 MB of labels and annotations. */
  readonly largePodBytes: number;
}

/** How long each process took, in the order of the runs, which took turns. */
export interface Turns {
  readonly plainSeconds: number[];
  readonly oursSeconds: number[];
}

/** What is synthesized: see `SHAPES` in bench/synth-once.ts. */
export type Shape = 'one chart' | 'many charts' | 'raw objects' | 'beside definitions';

/** What bench/synth.json holds. */
export interface SynthResults {
  readonly environment: {
    readonly node: string;
    readonly hostCpus: number;
    readonly hostLoadBefore: number[];
    readonly hostLoadAfter: number[];
  };
  readonly synth: (Turns & { readonly shape: Shape; readonly workloads: number })[];
  readonly import: Turns;
}

/** The latency below which this share of the events is; infinite among those that were not over. */
export function quantile({ microseconds, pending }: Latencies, share: number): number {
  const rank = Math.max(1, Math.ceil(share * (microseconds.length + pending.length)));
  return microseconds[rank - 1] ?? Infinity;
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}
