export * from './oom-policy-drop-in';
