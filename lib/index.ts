// The folders from the top down: what is in one may import what is in those below it, and lib/private.
export * from './workloads';
export * from './monitoring';
export * from './admission';
export * from './drop-in';
export * from './agent';
export * from './policy';
