import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import * as kplus from 'cdk8s-plus-28';
import { k8s } from 'cdk8s-plus-28';
import { IConstruct } from 'constructs';
import { AGENT_IMAGE } from './agent-image';
import { undefinedIfEmpty } from './empty-fields';
import { usageError } from './usage-error';
import {
  requireAffinity,
  requireDnsSubdomain,
  requireMember,
  requireNodeSelector,
  requirePinnedImage,
  requireTolerations,
} from './validation';
import { REAL_NODES } from './virtual-nodes';

// Shared by the DaemonSets of this library: a shell script from a ConfigMap, as root without any capability,
// on every Linux node.

/** The default namespace of this library. */
export const OWN_NAMESPACE = 'oom-kill-mode';

/** Where the script is in the container. */
export const SCRIPT_DIR = '/opt/oom-kill-mode';

/** A level without categories, which exists in every SELinux policy. */
export const SELINUX_LEVEL = 's0';

/** The options that the constructs share, with the same defaults. */
export interface NodeDaemonProps {
  readonly image?: string;
  readonly imagePullPolicy?: kplus.ImagePullPolicy;
  readonly imagePullSecrets?: string[];
  readonly nodeSelector?: { [key: string]: string };
  readonly tolerations?: k8s.Toleration[];
  readonly affinity?: k8s.Affinity;
  readonly selinuxType?: string;
}

/** Which nodes the pods run on, and who may pull their images. */
export function placement(
  construct: IConstruct,
  props: NodeDaemonProps,
): Pick<k8s.PodSpec, 'tolerations' | 'nodeSelector' | 'affinity' | 'imagePullSecrets'> {
  const linux = { 'kubernetes.io/os': 'linux' };
  requireNodeSelector(construct, props.nodeSelector ?? {}, linux);
  return {
    tolerations: undefinedIfEmpty(
      requireTolerations(construct, props.tolerations) ?? [{ operator: 'Exists' }],
    ),
    nodeSelector: { ...props.nodeSelector, ...linux },
    affinity: undefinedIfEmpty(requireAffinity(construct, props.affinity) ?? REAL_NODES),
    imagePullSecrets: undefinedIfEmpty(
      props.imagePullSecrets?.map((name) => ({
        name: requireDnsSubdomain(construct, 'imagePullSecrets', name),
      })),
    ),
  };
}

/** The image, and when to pull it. */
export function imageOf(
  construct: IConstruct,
  props: NodeDaemonProps,
): { image: string; imagePullPolicy: kplus.ImagePullPolicy } {
  const imagePullPolicy = props.imagePullPolicy ?? kplus.ImagePullPolicy.IF_NOT_PRESENT;
  requireMember(construct, 'imagePullPolicy', imagePullPolicy, kplus.ImagePullPolicy);
  return {
    image: requirePinnedImage(construct, 'image', props.image ?? AGENT_IMAGE),
    imagePullPolicy,
  };
}

/** Root without any capability: enough for files that belong to root, and for nothing else. */
export function rootWithoutCapabilities(
  construct: IConstruct,
  props: NodeDaemonProps,
): k8s.SecurityContext {
  return {
    runAsUser: 0,
    runAsGroup: 0,
    runAsNonRoot: false,
    privileged: false,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
    seLinuxOptions: seLinuxOptions(construct, props.selinuxType),
  };
}

function seLinuxOptions(construct: IConstruct, type?: string): k8s.SeLinuxOptions | undefined {
  if (type !== undefined && !/^[A-Za-z0-9_]+$/.test(type)) {
    throw usageError(
      construct,
      `selinuxType is not an SELinux type: ${JSON.stringify(type)}`,
      'a name such as "spc_t"',
    );
  }
  return type === undefined ? undefined : { type, level: SELINUX_LEVEL };
}

/** The name of a priority class; `""` is none. */
export function priorityClass(construct: IConstruct, name: string): string | undefined {
  return name === '' ? undefined : requireDnsSubdomain(construct, 'priorityClassName', name);
}

/** A script, and the hash of its content. */
export interface Script {
  readonly files: Record<string, string>;
  readonly hash: string;
}

/**
 * The files of a script by name, in a stable order. They are in the directory of the construct. In a bundle
 * that is the directory of the bundle, and the files are in a directory in it (docs/library.md).
 */
export function readScript(construct: IConstruct, own: string, name: 'agent' | 'drop-in'): Script {
  const bundled = join(own, name);
  const directory = [own, bundled].find((one) => existsSync(join(one, `${name}.sh`)));
  if (directory === undefined) {
    throw usageError(
      construct,
      `the script of the ${name} is not in ${bundled}, probably because a bundler moved the library`,
      `a build step that copies it beside the bundle (cp -r node_modules/cdk8s-oom-kill-mode/lib/${name} DIRECTORY_OF_THE_BUNDLE/), or make the library external to the bundle`,
    );
  }
  const names = readdirSync(directory).filter((file) => /\.(sh|awk)$/.test(file));
  const files = Object.fromEntries(
    names.sort().map((file) => [file, readFileSync(join(directory, file), 'utf8')]),
  );
  return { files, hash: createHash('sha256').update(JSON.stringify(files)).digest('hex') };
}

/** The name of the ConfigMap of a script. It changes with the script. */
export function scriptName(name: string, { hash }: Script): string {
  return `${name}-${hash.slice(0, 10)}`;
}
