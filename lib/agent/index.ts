export * from './oom-kill-mode-agent';
