import { execFileSync } from 'node:child_process';

/** Runs a command as root: as it is, or with sudo, which scripts/tools.sh has made sure asks nothing. */
export function asRoot(...command: string[]): void {
  const [program = '', ...args] =
    process.getuid?.() === 0 ? command : ['sudo', '-n', '--', ...command];
  execFileSync(program, args);
}
