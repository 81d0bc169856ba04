export * from './herder';
export * from './herder-chart';
export * from './one-per-node-deployment';
