export * from './herder';
export * from './herder-chart';
export * from './one-per-node-deployment';
export * from './oom-kill-mode';
export * from './oom-kill-mode-admission-policy';
export * from './oom-kill-mode-agent';
export * from './oom-kill-mode-monitoring';
export * from './oom-kill-policy';
