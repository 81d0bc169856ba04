// The folders from the top down. A folder may import from those below it and from lib/private.
export * from './workloads';
export * from './monitoring';
export * from './admission';
export * from './drop-in';
export * from './agent';
export * from './policy';
