import type * as k8s from 'k8s-1.28';
import { Manifest, PodTemplate } from './manifests';

// What OpenShift does to a pod with one security context constraint: it fills in what is not there, then
// refuses what does not fit. In the order and with the words of
// https://github.com/openshift/apiserver-library-go/tree/master/pkg/securitycontextconstraints

/** The client's types are classes, and what YAML gives is no instance of them. */
type Plain<T> = T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

type Container = Plain<k8s.V1Container>;
type PodSpec = Plain<k8s.V1PodSpec>;
type SELinuxOptions = Plain<k8s.V1SELinuxOptions>;
type Volume = Plain<k8s.V1Volume>;

type Ids = readonly { readonly min: number; readonly max: number }[];

interface GroupStrategy {
  readonly type: string;
  readonly ranges?: Ids;
}

export interface Constraints {
  readonly users: readonly string[];
  readonly allowHostDirVolumePlugin: boolean;
  readonly allowHostIPC: boolean;
  readonly allowHostNetwork: boolean;
  readonly allowHostPID: boolean;
  readonly allowHostPorts: boolean;
  readonly allowPrivilegedContainer: boolean;
  readonly allowPrivilegeEscalation?: boolean;
  readonly allowedCapabilities: readonly string[];
  readonly defaultAddCapabilities: readonly string[];
  readonly requiredDropCapabilities: readonly string[];
  readonly readOnlyRootFilesystem: boolean;
  readonly runAsUser: {
    readonly type: string;
    readonly uid?: number;
    readonly uidRangeMin?: number;
    readonly uidRangeMax?: number;
  };
  readonly seLinuxContext: { readonly type: string; readonly seLinuxOptions?: SELinuxOptions };
  readonly fsGroup: GroupStrategy;
  readonly supplementalGroups: GroupStrategy;
  readonly seccompProfiles?: readonly string[];
  readonly volumes: readonly string[];
}

/** What OpenShift allots to a namespace, in its annotations. */
export interface Namespace {
  readonly name: string;
  /** `openshift.io/sa.scc.mcs`, such as s0:c26,c5. */
  readonly mcs: string;
  /** `openshift.io/sa.scc.uid-range`, as its first and last. */
  readonly uids: readonly [number, number];
}

/** OpenShift's own, for pods that ask for nothing: bindata of openshift/cluster-kube-apiserver-operator. */
export const RESTRICTED_V2: Constraints = {
  users: [],
  allowHostDirVolumePlugin: false,
  allowHostIPC: false,
  allowHostNetwork: false,
  allowHostPID: false,
  allowHostPorts: false,
  allowPrivilegedContainer: false,
  allowPrivilegeEscalation: false,
  allowedCapabilities: ['NET_BIND_SERVICE'],
  defaultAddCapabilities: [],
  requiredDropCapabilities: ['ALL'],
  readOnlyRootFilesystem: false,
  runAsUser: { type: 'MustRunAsRange' },
  seLinuxContext: { type: 'MustRunAs' },
  fsGroup: { type: 'MustRunAs' },
  supplementalGroups: { type: 'RunAsAny' },
  seccompProfiles: ['runtime/default'],
  volumes: [
    'configMap',
    'csi',
    'downwardAPI',
    'emptyDir',
    'ephemeral',
    'image',
    'persistentVolumeClaim',
    'projected',
    'secret',
  ],
};

/** For those who know their uid, if it is not that of root. */
export const NONROOT_V2: Constraints = {
  ...RESTRICTED_V2,
  runAsUser: { type: 'MustRunAsNonRoot' },
  seLinuxContext: { type: 'MustRunAs' },
};

/** Everything that speaks against a pod of that service account in that namespace. */
export function refusals(
  scc: Constraints,
  template: PodTemplate,
  account: string,
  namespace: Namespace,
): string[] {
  const spec = withToken(structuredClone(template.spec));
  return [
    ...(scc.users.includes(`system:serviceaccount:${namespace.name}:${account}`)
      ? []
      : ['not usable by user or serviceaccount']),
    ...podRefusals(scc, spec, namespace),
    ...['initContainers', 'containers', 'ephemeralContainers'].flatMap((list) =>
      ((spec as unknown as Record<string, Container[] | undefined>)[list] ?? []).flatMap(
        (container, i) =>
          containerRefusals(scc, spec, container, namespace).map(
            (refusal) => `spec.${list}[${i}].${refusal}`,
          ),
      ),
    ),
  ];
}

/** The admission plugin ServiceAccount is before this one, and the token is a projected volume. */
function withToken(spec: PodSpec): PodSpec {
  return spec.automountServiceAccountToken === false
    ? spec
    : { ...spec, volumes: [...(spec.volumes ?? []), { name: 'kube-api-access', projected: {} }] };
}

function podRefusals(scc: Constraints, spec: PodSpec, { mcs, uids }: Namespace): string[] {
  const context = (spec.securityContext ??= {});
  const group = scc.fsGroup.ranges?.[0]?.min ?? uids[0];
  if (scc.seLinuxContext.type === 'MustRunAs') {
    context.seLinuxOptions ??= required(scc, mcs);
  }
  if (scc.fsGroup.type === 'MustRunAs') {
    context.fsGroup ??= group;
  }
  if (scc.supplementalGroups.type === 'MustRunAs') {
    context.supplementalGroups ??= [scc.supplementalGroups.ranges?.[0]?.min ?? uids[0]];
  }
  const [seccomp] = scc.seccompProfiles ?? [];
  if (seccomp === 'runtime/default') {
    context.seccompProfile ??= { type: 'RuntimeDefault' };
  }
  const within = (id: number, { ranges }: GroupStrategy, [first, last]: readonly number[]) =>
    (ranges ?? [{ min: first ?? 0, max: last ?? 0 }]).some(
      ({ min, max }) => min <= id && id <= max,
    );
  const names = ['hostPID', 'hostNetwork', 'hostIPC'] as const;
  const allowed = {
    hostPID: scc.allowHostPID,
    hostNetwork: scc.allowHostNetwork,
    hostIPC: scc.allowHostIPC,
  };
  return [
    ...names
      .filter((name) => spec[name] && !allowed[name])
      .map((name) => `spec.securityContext.${name}: Invalid value: true`),
    ...seLinuxRefusals(scc, context.seLinuxOptions, mcs).map((r) => `spec.securityContext.${r}`),
    ...(scc.fsGroup.type === 'MustRunAs' &&
    !within(context.fsGroup ?? -1, scc.fsGroup, [group, group])
      ? [`spec.securityContext.fsGroup: Invalid value: ${context.fsGroup}`]
      : []),
    ...(scc.supplementalGroups.type === 'MustRunAs'
      ? (context.supplementalGroups ?? [])
          .filter((id) => !within(id, scc.supplementalGroups, uids))
          .map((id) => `spec.securityContext.supplementalGroups: Invalid value: ${id}`)
      : []),
    ...seccompRefusals(scc, context.seccompProfile?.type).map((r) => `pod.${r}`),
    ...(context.sysctls ?? []).map(({ name }) => `spec.securityContext.sysctls: ${name}`),
    ...(spec.volumes ?? []).flatMap((volume, i) => volumeRefusals(scc, volume, i)),
  ];
}

function containerRefusals(
  scc: Constraints,
  spec: PodSpec,
  container: Container,
  { mcs, uids }: Namespace,
): string[] {
  const context = (container.securityContext ??= {});
  const pod = spec.securityContext ?? {};
  const { type, uid, uidRangeMin = uids[0], uidRangeMax = uids[1] } = scc.runAsUser;
  const generated = { MustRunAs: uid, MustRunAsRange: uidRangeMin }[type];
  // A container's options replace those of the pod as a whole, they are not merged.
  const user = context.runAsUser ?? pod.runAsUser ?? generated;
  const seLinux = context.seLinuxOptions ?? pod.seLinuxOptions;
  const readOnly = context.readOnlyRootFilesystem ?? scc.readOnlyRootFilesystem;
  const escalation =
    context.allowPrivilegeEscalation ??
    (scc.allowPrivilegeEscalation === false ? false : undefined);
  // Capabilities that are to be dropped are filled in, if they are not.
  const add = context.capabilities?.add ?? [];
  return [
    ...(context.privileged && !scc.allowPrivilegedContainer
      ? ['securityContext.privileged: Invalid value: true']
      : []),
    ...(scc.readOnlyRootFilesystem && !readOnly
      ? ['securityContext.readOnlyRootFilesystem: Invalid value: false']
      : []),
    ...(scc.allowPrivilegeEscalation === false && escalation !== false
      ? [`securityContext.allowPrivilegeEscalation: Invalid value: ${escalation}`]
      : []),
    ...(type === 'MustRunAs' && user !== uid
      ? [`securityContext.runAsUser: Invalid value: ${user}: must be: ${uid}`]
      : []),
    ...(type === 'MustRunAsRange' &&
    (user === undefined || user < uidRangeMin || user > uidRangeMax)
      ? [
          `securityContext.runAsUser: Invalid value: ${user}: must be in the ranges: [${uidRangeMin}, ${uidRangeMax}]`,
        ]
      : []),
    ...(type === 'MustRunAsNonRoot' &&
    (user === 0 || (context.runAsNonRoot ?? pod.runAsNonRoot) === false)
      ? ['securityContext.runAsUser: running with the root UID is forbidden']
      : []),
    ...seLinuxRefusals(scc, seLinux, mcs).map((r) => `securityContext.${r}`),
    ...(scc.allowedCapabilities.includes('*')
      ? []
      : add
          .filter(
            (one) => ![...scc.allowedCapabilities, ...scc.defaultAddCapabilities].includes(one),
          )
          .map((one) => `securityContext.capabilities.add: Invalid value: ${one}`)),
    ...seccompRefusals(scc, (context.seccompProfile ?? pod.seccompProfile)?.type),
    ...(container.ports ?? [])
      .filter(({ hostPort = 0 }) => hostPort > 0 && !scc.allowHostPorts)
      .map(({ hostPort }) => `ports.hostPort: Invalid value: ${hostPort}`),
  ];
}

/** A constraint that names no level takes that of the namespace. */
function required({ seLinuxContext }: Constraints, mcs: string): SELinuxOptions {
  return { ...seLinuxContext.seLinuxOptions, level: seLinuxContext.seLinuxOptions?.level ?? mcs };
}

function seLinuxRefusals(
  scc: Constraints,
  options: SELinuxOptions | undefined,
  mcs: string,
): string[] {
  if (scc.seLinuxContext.type !== 'MustRunAs') {
    return [];
  }
  const must = required(scc, mcs);
  const same = (a = '', b = '') =>
    // The categories are a set, and two are in the order that the author liked.
    a === b || (a.includes(':') && b.includes(':') && sorted(a) === sorted(b));
  return (['level', 'role', 'type', 'user'] as const)
    .filter((field) =>
      field === 'level'
        ? !same(must.level, options?.level)
        : (must[field] ?? '') !== (options?.[field] ?? ''),
    )
    .map(
      (field) =>
        `seLinuxOptions.${field}: Invalid value: "${options?.[field] ?? ''}": must be ${must[field] ?? ''}`,
    );
}

function sorted(level: string): string {
  const [sensitivity = '', categories = ''] = level.split(':');
  return [sensitivity, ...categories.split(',').sort()].join();
}

function seccompRefusals(
  { seccompProfiles = [] }: Constraints,
  type: string | undefined,
): string[] {
  const profile = { RuntimeDefault: 'runtime/default', Unconfined: 'unconfined' }[type ?? ''];
  if (seccompProfiles.includes('*')) {
    return [];
  }
  const fits =
    profile === undefined ? seccompProfiles.length === 0 : seccompProfiles.includes(profile);
  return fits ? [] : [`seccomp: Forbidden: ${profile ?? 'none'}`];
}

function volumeRefusals(scc: Constraints, volume: Volume, i: number): string[] {
  const kind = Object.keys(volume).find((key) => key !== 'name') ?? 'emptyDir';
  const allowed =
    scc.volumes.includes('*') ||
    (scc.volumes.includes(kind) && (kind !== 'hostPath' || scc.allowHostDirVolumePlugin));
  return allowed
    ? []
    : [`spec.volumes[${i}]: Invalid value: "${kind}": ${kind} volumes are not allowed to be used`];
}

/** The example's constraints, for an agent of another name. */
export function constraintsFor(
  manifest: Manifest,
  account: string,
  namespace: string,
): Constraints {
  return {
    ...(manifest as unknown as Constraints),
    users: [`system:serviceaccount:${namespace}:${account}`],
  };
}
