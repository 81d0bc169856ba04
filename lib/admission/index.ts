export * from './oom-kill-mode-admission-policy';
export * from './oom-kill-mode-defaults';
