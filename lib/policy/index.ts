export * from './oom-kill-mode';
export * from './oom-kill-policy';
export * from './oom-kill-report';
