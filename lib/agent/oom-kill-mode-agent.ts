import { ApiObject, Duration, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { k8s } from 'cdk8s-plus-28';
import { Construct, IConstruct } from 'constructs';
import { removeNamespace } from '../private/cluster-scoped';
import { DEFAULT_LABEL_PREFIX, modeLabel, requireLabelPrefix } from '../private/labels';
import { joinApp } from '../policy/synthesis';
import { removeEmptyFields, undefinedIfEmpty } from '../private/empty-fields';
import { METRICS_PORT } from './metrics';
import { NODE_EXPORTER_IMAGE, NO_TOKEN_VOLUME, metricsSidecar } from './metrics-sidecar';
import { usageError } from '../private/usage-error';
import {
  OWN_NAMESPACE,
  SCRIPT_DIR,
  SELINUX_LEVEL,
  Script,
  imageOf,
  placement,
  priorityClass,
  readScript,
  rootWithoutCapabilities,
  scriptName,
} from '../private/node-daemon';
import { NodeTerms, nodeTerms } from '../private/nodes';
import { requireProps } from '../private/props';
import { VERSION_LABEL } from '../private/version';
import { NO_SUBSTITUTION } from '../private/substitution';
import {
  requireAnnotations,
  requireAtMost,
  requireCpuFloor,
  requireCpu,
  requireDnsLabel,
  requireLabels,
  requireMember,
  requirePercentOrAbsolute,
  requirePinnedImage,
  requireSeconds,
  requireRequest,
  requireSize,
} from '../private/validation';

const RUN_DIR = '/run/oom-kill-mode';

// Enforced because hostPath needs it; audited and warned about alike, because a cluster whose
// default is stricter would complain about what we enforce.
const POD_SECURITY = {
  'pod-security.kubernetes.io/enforce': 'privileged',
  'pod-security.kubernetes.io/audit': 'privileged',
  'pod-security.kubernetes.io/warn': 'privileged',
};

// Those that GKE limits, and whoever else follows the example in the documentation of Kubernetes:
// https://kubernetes.io/docs/concepts/policy/resource-quotas/#limit-priority-class-consumption-by-default
const SYSTEM_PRIORITY_CLASSES = ['system-node-critical', 'system-cluster-critical'];

// A thousand million, what GKE gives kube-system: the quota is there to admit pods, not to count them out. A
// cluster has at most some ten thousand nodes, and during a rollout a tenth more pods of the agent.
const QUOTA_PODS = '1G';

/**
 * How much the agent writes to its log. At rest it writes nothing but, at the
 * debug level, a line every few minutes.
 */
export enum AgentLogLevel {
  /** What keeps the agent from doing its work. */
  ERROR = 'error',

  /** Also what it works around, such as a node where a mode cannot be had. */
  WARN = 'warn',

  /** Also every pod that opts in or out, and every mode written: one line for each. */
  INFO = 'info',

  /** Also what it watches with: every inotifyd and every watch of the API server. */
  DEBUG = 'debug',
}

/**
 * CPU and memory of the agent's container.
 *
 * The CPU settings are part of its correctness: the agent has a fraction of a
 * second between the runtime's write and the first instruction of a container.
 * A request of 10m (a small `cpu.weight`) and a limit of 100m (throttled) were
 * measured to be too late for 15 pods of 15, so both must be higher. The defaults
 * were in time for all. Values between these were not measured.
 */
export interface AgentResources {
  /**
   * CPU request, in whole milli-CPUs: more than 10m.
   *
   * @default Cpu.millis(100)
   */
  readonly cpuRequest?: kplus.Cpu;

  /**
   * CPU limit, in whole milli-CPUs: at least the request, more than 100m, at most 250m.
   *
   * @default Cpu.millis(250)
   */
  readonly cpuLimit?: kplus.Cpu;

  /**
   * Memory request, in whole mebibytes.
   *
   * @default Size.mebibytes(16)
   */
  readonly memoryRequest?: Size;

  /**
   * Memory limit, in whole mebibytes: at least the request, at most 256 MiB.
   *
   * @default Size.mebibytes(64)
   */
  readonly memoryLimit?: Size;
}

/**
 * CPU and memory of the container that serves metrics, node-exporter.
 */
export interface MetricsResources {
  /**
   * CPU request, in whole milli-CPUs.
   *
   * @default Cpu.millis(10)
   */
  readonly cpuRequest?: kplus.Cpu;

  /**
   * CPU limit, in whole milli-CPUs: at least the request.
   *
   * @default Cpu.millis(50)
   */
  readonly cpuLimit?: kplus.Cpu;

  /**
   * Memory request, in whole mebibytes.
   *
   * @default Size.mebibytes(16)
   */
  readonly memoryRequest?: Size;

  /**
   * Memory limit, in whole mebibytes: at least the request.
   *
   * @default Size.mebibytes(64)
   */
  readonly memoryLimit?: Size;
}

/**
 * Options of `OomKillModeAgent`.
 */
export interface OomKillModeAgentProps {
  /**
   * The namespace of the agent: a DNS-1123 label. It needs the Pod Security
   * level `privileged`, the only one that allows hostPath volumes.
   *
   * @default "oom-kill-mode"
   * @see https://kubernetes.io/docs/concepts/security/pod-security-standards/
   */
  readonly namespace?: string;

  /**
   * Whether to create the namespace, with the Pod Security level `privileged`.
   * With `false` it must exist. `default` and `kube-*` are never created.
   *
   * @default true for the namespace "oom-kill-mode"; false for any other, because it
   * may belong to somebody else
   */
  readonly createNamespace?: boolean;

  /**
   * The name of every object of the agent: a DNS-1123 label. It is part of the
   * DaemonSet's selector, which is immutable. The name of the ConfigMap also ends
   * in a hash of the script.
   *
   * @default "oom-kill-mode-agent"
   */
  readonly name?: string;

  /**
   * The prefix of the pod label and annotation to obey, without the slash: a
   * DNS-1123 subdomain of at most 253 characters. Policies must have the same prefix.
   *
   * @default "cdk8s-oom-kill-mode"
   */
  readonly labelPrefix?: string;

  /**
   * The image, as a full reference pinned by digest or by a tag that is not
   * `latest`. It must have busybox as Alpine builds it, with `ash`, `inotifyd` and
   * `awk`, and `curl`.
   *
   * @default docker.io/curlimages/curl:8.20.0, pinned by digest: the curl project's own image
   */
  readonly image?: string;

  /**
   * When to pull the image.
   *
   * @default ImagePullPolicy.IF_NOT_PRESENT: the image is pinned, and a registry
   * that is down must not keep the agent from a node
   */
  readonly imagePullPolicy?: kplus.ImagePullPolicy;

  /**
   * Names of secrets with registry credentials, in the agent's namespace.
   *
   * @default none
   */
  readonly imagePullSecrets?: string[];

  /**
   * CPU and memory of the agent's container.
   *
   * @default requests of 100m and 16Mi, limits of 250m and 64Mi
   */
  readonly resources?: AgentResources;

  /**
   * The priority class of the agent's pods, or `""` for none.
   *
   * @default "system-node-critical", because the label has no effect on a node
   * without an agent
   */
  readonly priorityClassName?: string;

  /**
   * Whether to create a ResourceQuota for pods of the priority class in the agent's
   * namespace. Some clusters, such as GKE, limit the priority classes of the system.
   * They admit such pods only in a namespace with this quota. It stops no pod, because
   * its limit is a thousand million.
   *
   * @default true for the classes "system-node-critical" and "system-cluster-critical",
   * but not in the namespace "kube-system", because it has a quota in such a cluster
   * @see https://kubernetes.io/docs/concepts/policy/resource-quotas/#limit-priority-class-consumption-by-default
   */
  readonly resourceQuota?: boolean;

  /**
   * How many nodes may be without a ready agent during a rollout, at least one node
   * or 1 percent and at most 100 percent. The old pod then ends before the new one
   * starts. Containers that start on such a node have the node's default until the
   * new agent is ready.
   *
   * The default needs room for a second agent, 100m CPU and a pod, on each node
   * during a rollout. On a full node, the scheduler preempts another workload if the
   * agent has a system priority class. Without one, the rollout waits.
   *
   * @default no node is without an agent: the new pod is ready before the old one
   * ends, on a tenth of the nodes at a time
   */
  readonly maxUnavailable?: kplus.PercentOrAbsolute;

  /**
   * The taints that the agent tolerates, instead of the default.
   *
   * @default every taint, because opted-in pods may be on any node
   */
  readonly tolerations?: k8s.Toleration[];

  /**
   * Labels of the nodes to run on, in addition to `kubernetes.io/os: linux`.
   *
   * @default {}
   */
  readonly nodeSelector?: { [key: string]: string };

  /**
   * The affinity of the agent's pods, instead of the default.
   *
   * @default every node except virtual ones, which have no cgroups to write: those of
   * virtual-kubelet, AKS, Fargate, Liqo and others that have a known label
   */
  readonly affinity?: k8s.Affinity;

  /**
   * The SELinux type of the agent's container. Nodes with SELinux in enforcing
   * mode need `spc_t`, because `container_t` may not write `cgroup_t`. The pod then has
   * the level `s0`, so that its containers can share a volume.
   *
   * @default the container runtime's type and level
   */
  readonly selinuxType?: string;

  /**
   * How much to log.
   *
   * @default AgentLogLevel.INFO
   */
  readonly logLevel?: AgentLogLevel;

  /**
   * How often the agent reads every file, to find changes that no event reported:
   * whole seconds, from 10 seconds to 5 minutes. Without inotify it reads them
   * every second.
   *
   * @default Duration.seconds(60)
   */
  readonly resyncPeriod?: Duration;

  /**
   * Whether to create Events of the pods, for processes that the kernel killed in
   * containers that kept running, and for modes that cannot work. `kubectl describe
   * pod` shows them. The agent may then create and patch Events in every namespace.
   * A container costs at most one request in ten seconds, and one in five minutes
   * if its processes are killed all the time.
   *
   * @default true
   */
  readonly events?: boolean;

  /**
   * Whether to serve metrics for Prometheus: a second, unprivileged container,
   * node-exporter with only its textfile collector. It has requests of 10m CPU and
   * 16Mi and limits of 50m and 64Mi. The NetworkPolicy then admits everyone to port
   * 9539. `OomKillModeMonitoring` creates the objects that scrape it.
   *
   * @default false
   */
  readonly metrics?: boolean;

  /**
   * The image of the second container, node-exporter.
   *
   * A full reference pinned by digest or by a tag that is not `latest`, version 1.5 or
   * later. Without `metrics` it is not used.
   *
   * @default "quay.io/prometheus/node-exporter:v1.12.1": the Prometheus project's own image
   */
  readonly metricsImage?: string;

  /**
   * CPU and memory of the second container. Without `metrics` they are not used.
   *
   * @default requests of 10m and 16Mi, limits of 50m and 64Mi
   */
  readonly metricsResources?: MetricsResources;

  /**
   * Labels to add to every object and to the agent's pods.
   *
   * @default {}
   */
  readonly labels?: { [key: string]: string };

  /**
   * Annotations to add to every object and to the agent's pods.
   *
   * @default {}
   */
  readonly annotations?: { [key: string]: string };
}

/**
 * The agent: one pod on every Linux node, which writes the mode of opted-in pods
 * into the cgroups of their containers.
 *
 * Creates a Namespace, ServiceAccount, ResourceQuota, ClusterRole (`pods: watch`, and
 * `events: create, patch` unless they are off), ClusterRoleBinding, an immutable
 * ConfigMap with the script, DaemonSet, and a NetworkPolicy that denies all
 * ingress except to the metrics.
 *
 * These permissions are necessary:
 * - uid 0, with no capability at all: cgroup files belong to root, and another
 *   uid was measured to fail;
 * - `/sys/fs/cgroup` of the host, writable: it holds the one file to write;
 * - the Pod Security level `privileged` of its namespace: hostPath needs it.
 *
 * The constructor throws, with the construct path, on invalid names, prefix,
 * image, quantities, durations, labels and annotations, on `createNamespace` for a
 * namespace of Kubernetes, and on a quota without a priority class.
 *
 * Synthesis fails if the app has another Namespace of that name, a policy with a
 * prefix that none of its agents has, or if the cluster has another object of the
 * same kind, name and namespace, or another agent with the same prefix on the same
 * nodes. A cluster is an outermost chart: an app for several has a chart for each.
 * Agents of several node pools of one cluster may share a prefix if their
 * `nodeSelector` or required node affinity shows that no node is in both.
 *
 * @example
 * import { OomKillModeAgent } from 'cdk8s-oom-kill-mode';
 *
 * new OomKillModeAgent(chart, 'agent', {
 *   namespace: 'kube-system',
 *   createNamespace: false,
 *   labels: { team: 'platform' },
 * });
 */
export class OomKillModeAgent extends Construct {
  /** The prefix of the pod label and annotation that this agent obeys. */
  public readonly labelPrefix: string;

  /** The name of the agent's objects. */
  public readonly name: string;

  /** The namespace of the agent. */
  public readonly namespace: string;

  /** Whether the agent serves metrics. */
  public readonly metrics: boolean;

  /**
   * The DaemonSet, for JSON patches that no option replaces.
   *
   * The library does not check patches.
   */
  public readonly daemonSet: ApiObject;

  /** The labels that select the agent's pods, in its namespace. */
  public readonly podSelector: { [key: string]: string };

  /** @internal */
  public readonly _createsNamespace: boolean;

  /** @internal */
  public readonly _nodes: NodeTerms;

  private readonly script: Script;

  public constructor(scope: Construct, id: string, options: OomKillModeAgentProps = {}) {
    super(scope, id);
    const props = requireProps(this, options, {
      namespace: 'string',
      createNamespace: 'boolean',
      name: 'string',
      labelPrefix: 'string',
      image: 'string',
      imagePullPolicy: 'string',
      imagePullSecrets: 'strings',
      resources: 'object',
      priorityClassName: 'string',
      resourceQuota: 'boolean',
      maxUnavailable: 'percentOrAbsolute',
      tolerations: 'list',
      nodeSelector: 'map',
      affinity: 'object',
      selinuxType: 'string',
      logLevel: 'string',
      resyncPeriod: 'duration',
      events: 'boolean',
      metrics: 'boolean',
      metricsImage: 'string',
      metricsResources: 'object',
      labels: 'map',
      annotations: 'map',
    });
    this.name = requireDnsLabel(this, 'name', props.name ?? 'oom-kill-mode-agent');
    this.namespace = requireDnsLabel(this, 'namespace', props.namespace ?? OWN_NAMESPACE);
    this.labelPrefix = requireLabelPrefix(this, props.labelPrefix ?? DEFAULT_LABEL_PREFIX);
    this._createsNamespace = this.createsNamespace(props.createNamespace);
    this._nodes = nodeTerms(props.nodeSelector ?? {}, props.affinity);
    this.metrics = props.metrics ?? false;
    joinApp(this, 'agent');

    this.script = readScript(this, __dirname, 'agent');
    const events = props.events ?? true;
    const selector = {
      'app.kubernetes.io/name': 'cdk8s-oom-kill-mode',
      'app.kubernetes.io/instance': this.name,
      'app.kubernetes.io/component': 'agent',
    };
    this.podSelector = selector;
    const ourLabels = { ...selector, 'app.kubernetes.io/managed-by': 'cdk8s', ...VERSION_LABEL };
    // The mode label is refused as well: an agent that acts on itself helps nobody.
    requireLabels(this, props.labels ?? {}, {
      ...ourLabels,
      ...POD_SECURITY,
      [modeLabel(this.labelPrefix)]: '',
    });
    requireAnnotations(this, props.annotations ?? {}, {});

    const metadata = {
      name: this.name,
      namespace: this.namespace,
      labels: { ...props.labels, ...ourLabels },
      annotations: props.annotations,
    };

    if (this._createsNamespace) {
      const namespace = new kplus.Namespace(this, 'Namespace', {
        metadata: {
          ...metadata,
          name: this.namespace,
          labels: { ...metadata.labels, ...POD_SECURITY },
        },
      });
      removeNamespace(namespace);
      removeEmptyFields(namespace, '/spec');
    }
    // The pod asks for the token itself; nobody else who uses the account gets it unasked.
    const account = new kplus.ServiceAccount(this, 'ServiceAccount', {
      metadata,
      automountToken: false,
    });
    this.createQuota(props, metadata);
    const role = new kplus.ClusterRole(this, 'ClusterRole', { metadata });
    role.allow(['watch'], kplus.ApiResource.PODS);
    removeEmptyFields(role, '/rules/0/resourceNames');
    if (events) {
      role.allow(['create', 'patch'], kplus.ApiResource.EVENTS);
      removeEmptyFields(role, '/rules/1/resourceNames');
    }
    removeNamespace(role);
    const binding = new kplus.ClusterRoleBinding(this, 'ClusterRoleBinding', { metadata, role });
    binding.addSubjects(account);
    removeEmptyFields(binding, '/subjects/0/apiGroup');
    removeNamespace(binding);
    // Running pods keep the script that they were made with, and a rollback brings the old one back.
    new kplus.ConfigMap(this, 'ConfigMap', {
      metadata: {
        ...metadata,
        name: scriptName(this.name, this.script),
        annotations: { ...props.annotations, ...NO_SUBSTITUTION },
      },
      data: this.script.files,
      immutable: true,
    });
    // The L2 NetworkPolicy has no rule for a port without one for a peer, and who Prometheus is,
    // only the cluster knows.
    new k8s.KubeNetworkPolicy(this, 'NetworkPolicy', {
      metadata,
      spec: {
        podSelector: { matchLabels: selector },
        policyTypes: ['Ingress'],
        ingress: this.metrics
          ? [{ ports: [{ port: k8s.IntOrString.fromNumber(METRICS_PORT), protocol: 'TCP' }] }]
          : undefined,
      },
    });

    // The L2 DaemonSet has no updateStrategy, priorityClassName, nodeSelector, enableServiceLinks,
    // seLinuxOptions, or seccomp profile for the pod, and its selector is a hash of the construct
    // path. JSON patches for all of that would be most of the object.
    this.daemonSet = new k8s.KubeDaemonSet(this, 'DaemonSet', {
      metadata,
      spec: {
        selector: { matchLabels: selector },
        revisionHistoryLimit: 3,
        updateStrategy: { type: 'RollingUpdate', rollingUpdate: this.rollingUpdate(props) },
        template: {
          metadata: {
            labels: { ...props.labels, ...selector },
            annotations: undefinedIfEmpty(props.annotations),
          },
          spec: this.podSpec(props),
        },
      },
    });
    this.node.defaultChild = this.daemonSet;
  }

  /** What is somebody else's would get our labels, and go with us when a GitOps tool prunes. */
  private createsNamespace(asked?: boolean): boolean {
    if (asked && /^(default$|kube-)/.test(this.namespace)) {
      throw usageError(
        this,
        `createNamespace is true, and ${this.namespace} is a namespace of Kubernetes itself`,
        'createNamespace: false or another namespace',
      );
    }
    return asked ?? this.namespace === OWN_NAMESPACE;
  }

  private rollingUpdate({ maxUnavailable }: OomKillModeAgentProps): k8s.RollingUpdateDaemonSet {
    // The new pod is ready before the old one ends: no moment without an agent on a node.
    return maxUnavailable === undefined
      ? {
          maxSurge: k8s.IntOrString.fromString('10%'),
          maxUnavailable: k8s.IntOrString.fromNumber(0),
        }
      : {
          maxSurge: k8s.IntOrString.fromNumber(0),
          maxUnavailable: requirePercentOrAbsolute(this, 'maxUnavailable', maxUnavailable),
        };
  }

  private priorityClass({ priorityClassName }: OomKillModeAgentProps): string | undefined {
    return priorityClass(this, priorityClassName ?? 'system-node-critical');
  }

  private createQuota(props: OomKillModeAgentProps, metadata: k8s.ObjectMeta): void {
    const priorityClass = this.priorityClass(props);
    if (props.resourceQuota && priorityClass === undefined) {
      throw usageError(
        this,
        'resourceQuota is true, and there is no priority class',
        'a priorityClassName, or leave out resourceQuota',
      );
    }
    const limited =
      priorityClass !== undefined &&
      SYSTEM_PRIORITY_CLASSES.includes(priorityClass) &&
      this.namespace !== 'kube-system';
    if (priorityClass === undefined || !(props.resourceQuota ?? limited)) {
      return;
    }
    // cdk8s-plus has no ResourceQuota.
    new k8s.KubeResourceQuota(this, 'ResourceQuota', {
      metadata,
      spec: {
        hard: { pods: k8s.Quantity.fromString(QUOTA_PODS) },
        scopeSelector: {
          matchExpressions: [
            { scopeName: 'PriorityClass', operator: 'In', values: [priorityClass] },
          ],
        },
      },
    });
  }

  private podSpec(props: OomKillModeAgentProps): k8s.PodSpec {
    return {
      serviceAccountName: this.name,
      automountServiceAccountToken: true,
      priorityClassName: this.priorityClass(props),
      ...placement(this, props),
      // The API server is found by its environment variables, which are always there; resolving
      // through the node leaves the agent independent of the cluster's DNS.
      dnsPolicy: 'Default',
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 5,
      securityContext: {
        seccompProfile: { type: 'RuntimeDefault' },
        // The containers share a volume: a random level for each would keep one from the other's files.
        seLinuxOptions: props.selinuxType === undefined ? undefined : { level: SELINUX_LEVEL },
      },
      containers: [this.container(props), ...this.sidecars(props)],
      volumes: [
        {
          name: 'script',
          configMap: { name: scriptName(this.name, this.script), defaultMode: 0o444 },
        },
        {
          name: 'run',
          emptyDir: { medium: 'Memory', sizeLimit: k8s.Quantity.fromString('4Mi') },
        },
        { name: 'cgroup', hostPath: { path: '/sys/fs/cgroup', type: 'Directory' } },
        // The kubelet creates this directory when it starts.
        { name: 'containers', hostPath: { path: '/var/log/containers', type: 'Directory' } },
        // Without a type: the runtime makes a directory that is missing, so a node without systemd keeps its agent.
        // /run/systemd/system must not be made there, because programs take it for a sign of systemd.
        { name: 'systemd', hostPath: { path: '/run/systemd/transient' } },
        ...(this.metrics ? [NO_TOKEN_VOLUME] : []),
      ],
    };
  }

  private container(props: OomKillModeAgentProps): k8s.Container {
    const logLevel = props.logLevel ?? AgentLogLevel.INFO;
    requireMember(this, 'logLevel', logLevel, AgentLogLevel);
    const resync = requireSeconds(
      this,
      'resyncPeriod',
      props.resyncPeriod ?? Duration.seconds(60),
      10,
      300,
    );
    return {
      name: 'agent',
      ...imageOf(this, props),
      command: ['/bin/sh', `${SCRIPT_DIR}/agent.sh`],
      workingDir: RUN_DIR,
      env: [
        { name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
        // How the agent finds its own cgroup, and so the cgroup driver and root of this node.
        { name: 'POD_UID', valueFrom: { fieldRef: { fieldPath: 'metadata.uid' } } },
        { name: 'LABEL_PREFIX', value: this.labelPrefix },
        { name: 'LOG_LEVEL', value: logLevel },
        { name: 'RESYNC_SECONDS', value: String(resync) },
        { name: 'SCRIPT_SHA256', value: this.script.hash },
        ...((props.events ?? true) ? [{ name: 'EVENTS', value: 'yes' }] : []),
        ...(this.metrics ? [{ name: 'METRICS', value: 'yes' }] : []),
      ],
      // Every exec probe is a process in this container's cgroup, so there is one at the start, which waits
      // for what it asks for, and one a minute. Nobody sends requests to the agent: it needs no readiness
      // probe. After an hour in which it did not get ready it is started again.
      startupProbe: {
        exec: { command: ['sh', '-c', `until test -e ${RUN_DIR}/ready; do sleep 1; done`] },
        periodSeconds: 1,
        timeoutSeconds: 30,
        failureThreshold: 120,
      },
      // The loop makes the file anew every ten seconds; one that stands still does not, and then there is
      // nothing to remove.
      livenessProbe: {
        exec: { command: ['rm', `${RUN_DIR}/alive`] },
        periodSeconds: 60,
        timeoutSeconds: 10,
        failureThreshold: 3,
      },
      resources: this.resources(props.resources ?? {}),
      securityContext: rootWithoutCapabilities(this, props),
      volumeMounts: [
        { name: 'script', mountPath: SCRIPT_DIR, readOnly: true },
        { name: 'run', mountPath: RUN_DIR },
        { name: 'cgroup', mountPath: '/host/cgroup' },
        { name: 'containers', mountPath: '/host/containers', readOnly: true },
        { name: 'systemd', mountPath: '/host/systemd', readOnly: true },
      ],
    };
  }

  private sidecars(props: OomKillModeAgentProps): k8s.Container[] {
    const image = requirePinnedImage(
      this,
      'metricsImage',
      props.metricsImage ?? NODE_EXPORTER_IMAGE,
    );
    const pullPolicy = props.imagePullPolicy ?? kplus.ImagePullPolicy.IF_NOT_PRESENT;
    const resources = this.metricsResources(props.metricsResources ?? {});
    return this.metrics ? [metricsSidecar(image, pullPolicy, resources, 'run')] : [];
  }

  private resources(options: AgentResources): k8s.ResourceRequirements {
    const amounts = this.amounts(options, 'resources', { cpu: [100, 250], memory: [16, 64] });
    const { cpu, memory } = amounts;
    requireAtMost(this, 'cpuLimit', cpu.limit, 250, 'm');
    requireAtMost(this, 'memoryLimit', memory.limit, 256, 'Mi');
    requireCpuFloor(this, 'cpuRequest', cpu.request, 10);
    requireCpuFloor(this, 'cpuLimit', cpu.limit, 100);
    return requirements(this, amounts, options);
  }

  private metricsResources(options: MetricsResources): k8s.ResourceRequirements {
    const amounts = this.amounts(options, 'metricsResources', { cpu: [10, 50], memory: [16, 64] });
    return requirements(this, amounts, options);
  }

  /** Milli-CPUs and mebibytes; where nothing is said, the default request and limit. */
  private amounts(
    options: MetricsResources,
    what: string,
    defaults: {
      readonly cpu: readonly [number, number];
      readonly memory: readonly [number, number];
    },
  ): Amounts {
    const props = requireProps(
      this,
      options,
      { cpuRequest: 'cpu', cpuLimit: 'cpu', memoryRequest: 'size', memoryLimit: 'size' },
      what,
    );
    const cpu = (prop: 'cpuRequest' | 'cpuLimit', otherwise: number) =>
      requireCpu(this, prop, props[prop] ?? kplus.Cpu.millis(otherwise));
    const memory = (prop: 'memoryRequest' | 'memoryLimit', otherwise: number) =>
      requireSize(this, prop, props[prop] ?? Size.mebibytes(otherwise));
    return {
      cpu: { request: cpu('cpuRequest', defaults.cpu[0]), limit: cpu('cpuLimit', defaults.cpu[1]) },
      memory: {
        request: memory('memoryRequest', defaults.memory[0]),
        limit: memory('memoryLimit', defaults.memory[1]),
      },
    };
  }
}

interface Amounts {
  readonly cpu: { readonly request: number; readonly limit: number };
  readonly memory: { readonly request: number; readonly limit: number };
}

function requirements(
  construct: IConstruct,
  { cpu, memory }: Amounts,
  given: MetricsResources,
): k8s.ResourceRequirements {
  requireRequest(construct, 'cpu', cpu, given.cpuRequest === undefined, 'm');
  requireRequest(construct, 'memory', memory, given.memoryRequest === undefined, 'Mi');
  const quantities = (which: 'request' | 'limit') => ({
    cpu: k8s.Quantity.fromString(`${cpu[which]}m`),
    memory: k8s.Quantity.fromString(`${memory[which]}Mi`),
  });
  return { requests: quantities('request'), limits: quantities('limit') };
}
