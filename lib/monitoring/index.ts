export * from './oom-kill-mode-monitoring';
