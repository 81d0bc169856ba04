import { Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { modeLabel } from '../private/labels';

/**
 * A container sees its own cgroup's file at the root of its cgroup mount, and an
 * init container has the mode of its pod, so this needs no API and no permission.
 * Where there is no such file (cgroup v1), there is nothing to wait for.
 */
const SCRIPT = `
trap 'exit 1' TERM
seconds=0
while [ "$KILL_MODE" = Single ] && [ "$seconds" -lt 120 ] &&
  read -r value 2>/dev/null </sys/fs/cgroup/memory.oom.group && [ "$value" != 0 ]; do
  sleep 1
  seconds=$((seconds + 1))
done
`.trim();

/** An init container that ends when the agent has made its pod Single, or two minutes have passed. */
export function waitForAgent(image: string, labelPrefix: string): kplus.ContainerProps {
  const cpu = kplus.Cpu.millis(100);
  const memory = Size.mebibytes(32);
  return {
    name: 'wait-for-kill-mode',
    image,
    imagePullPolicy: kplus.ImagePullPolicy.IF_NOT_PRESENT,
    command: ['/bin/sh', '-c', SCRIPT],
    envVariables: {
      KILL_MODE: kplus.EnvValue.fromFieldRef(kplus.EnvFieldPaths.POD_LABEL, {
        key: modeLabel(labelPrefix),
      }),
    },
    // Requests and limits are equal, or the pod would not be Guaranteed.
    resources: { cpu: { request: cpu, limit: cpu }, memory: { request: memory, limit: memory } },
    securityContext: {
      user: 65534,
      ensureNonRoot: true,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: [kplus.Capability.ALL] },
    },
  };
}
