import { ApiObject } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { k8s } from 'cdk8s-plus-28';
import { Construct } from 'constructs';
import { joinApp } from '../policy/synthesis';
import { undefinedIfEmpty } from '../private/empty-fields';
import {
  OWN_NAMESPACE,
  SCRIPT_DIR,
  Script,
  imageOf,
  placement,
  priorityClass,
  readScript,
  rootWithoutCapabilities,
  scriptName,
} from '../private/node-daemon';
import { requireProps } from '../private/props';
import { VERSION_LABEL } from '../private/version';
import { NO_SUBSTITUTION } from '../private/substitution';
import { requireAnnotations, requireDnsLabel, requireLabels } from '../private/validation';

const CONTAINER = 'drop-in';

/**
 * Options of `OomPolicyDropIn`.
 */
export interface OomPolicyDropInProps {
  /**
   * The namespace: a DNS-1123 label. It must exist, with the Pod Security level
   * `privileged`, the only one that allows hostPath volumes and hostPID.
   *
   * @default "oom-kill-mode", which the agent creates
   * @see https://kubernetes.io/docs/concepts/security/pod-security-standards/
   */
  readonly namespace?: string;

  /**
   * The name of every object: a DNS-1123 label. It is part of the DaemonSet's
   * selector, which is immutable. The name of the ConfigMap also ends in a hash of
   * the script.
   *
   * @default "oom-policy-drop-in"
   */
  readonly name?: string;

  /**
   * The image, as a full reference pinned by digest or by a tag that is not
   * `latest`. It must have busybox as Alpine builds it.
   *
   * @default docker.io/curlimages/curl:8.20.0, pinned by digest: the agent's image
   */
  readonly image?: string;

  /**
   * When to pull the image.
   *
   * @default ImagePullPolicy.IF_NOT_PRESENT
   */
  readonly imagePullPolicy?: kplus.ImagePullPolicy;

  /**
   * Names of secrets with registry credentials, in the namespace of the pods.
   *
   * @default none
   */
  readonly imagePullSecrets?: string[];

  /**
   * The priority class of the pods, or `""` for none.
   *
   * @default none. After a pod has written the drop-in it has nothing left to do, so it must
   * not replace another pod. A cluster that limits a priority class needs a ResourceQuota for
   * it in the namespace, such as that of the agent.
   */
  readonly priorityClassName?: string;

  /**
   * The taints that the pods tolerate, instead of the default.
   *
   * @default every taint, because opted-in pods may be on any node
   */
  readonly tolerations?: k8s.Toleration[];

  /**
   * Labels of the nodes to run on, in addition to `kubernetes.io/os: linux`.
   *
   * If some nodes have no systemd, select the others, here or with `affinity`. On a node
   * without `/run/systemd/system` the pod waits in `ContainerCreating`.
   *
   * @default {}
   */
  readonly nodeSelector?: { [key: string]: string };

  /**
   * The affinity of the pods, instead of the default.
   *
   * @default every node except virtual ones, as for the agent
   */
  readonly affinity?: k8s.Affinity;

  /**
   * The SELinux type of the container. Nodes with SELinux in enforcing mode need
   * `spc_t`, because `container_t` may neither write unit files nor signal systemd.
   *
   * @default the container runtime's type and level
   */
  readonly selinuxType?: string;

  /**
   * Labels to add to every object and to the pods.
   *
   * @default {}
   */
  readonly labels?: { [key: string]: string };

  /**
   * Annotations to add to every object and to the pods.
   *
   * @default {}
   */
  readonly annotations?: { [key: string]: string };
}

/**
 * A drop-in for systemd, for nodes where `Single` cannot work without it.
 *
 * systemd 253 to 258 ends a container after any OOM kill in it if a runc after 1.5 has set `OOMPolicy=kill`.
 * One pod on each node writes a drop-in with `OOMPolicy=continue` for the scopes of containerd and CRI-O into
 * `/run/systemd/system`, and makes systemd reload. Then it sleeps. On a node without systemd this directory
 * does not exist, and the pod waits, so select the nodes. When a node starts again, the pod writes the
 * drop-in again. If you delete the DaemonSet, the drop-in stays until the node starts again.
 *
 * Creates an immutable ConfigMap with the script, a NetworkPolicy that denies all ingress and egress, and a
 * DaemonSet, in a namespace that exists. The pods have no token of a service account. API servers before
 * Kubernetes 1.30 do not know the field `appArmorProfile`, so apply the manifests there with
 * `--validate=warn`. An annotation says the same as the field.
 *
 * **Whoever can write unit files owns the node**, so the agent never does. A reviewer will ask about these
 * permissions:
 * - uid 0, with no capability at all: the unit files and systemd belong to root;
 * - hostPID, and no confinement by AppArmor: a signal makes systemd reload;
 * - `/run/systemd/system` of the host, writable: it holds the drop-ins;
 * - a namespace with the Pod Security level `privileged`.
 *
 * The constructor throws, with the construct path, on invalid names, image, labels, annotations and
 * tolerations. Synthesis fails if the cluster (outermost chart) has another object of the same kind, name and
 * namespace.
 *
 * @example
 * import { OomPolicyDropIn } from 'cdk8s-oom-kill-mode';
 *
 * new OomPolicyDropIn(chart, 'drop-in', {
 *   nodeSelector: { 'example.com/oom-policy-drop-in': 'yes' },
 * });
 */
export class OomPolicyDropIn extends Construct {
  /** The name of the objects. */
  public readonly name: string;

  /** The namespace of the objects. */
  public readonly namespace: string;

  /** The DaemonSet, for JSON patches if no option fits. */
  public readonly daemonSet: ApiObject;

  public constructor(scope: Construct, id: string, options: OomPolicyDropInProps = {}) {
    super(scope, id);
    const props = requireProps(this, options, {
      namespace: 'string',
      name: 'string',
      image: 'string',
      imagePullPolicy: 'string',
      imagePullSecrets: 'strings',
      priorityClassName: 'string',
      tolerations: 'list',
      nodeSelector: 'map',
      affinity: 'object',
      selinuxType: 'string',
      labels: 'map',
      annotations: 'map',
    });
    this.name = requireDnsLabel(this, 'name', props.name ?? 'oom-policy-drop-in');
    this.namespace = requireDnsLabel(this, 'namespace', props.namespace ?? OWN_NAMESPACE);
    joinApp(this, 'drop-in');

    // Another name than the agent's, because selectors of the agent's pods must not match these pods.
    const selector = {
      'app.kubernetes.io/name': 'oom-policy-drop-in',
      'app.kubernetes.io/instance': this.name,
    };
    const ourLabels = {
      ...selector,
      'app.kubernetes.io/part-of': 'cdk8s-oom-kill-mode',
      'app.kubernetes.io/managed-by': 'cdk8s',
      ...VERSION_LABEL,
    };
    // Since Kubernetes 1.30 the field appArmorProfile says the same. Older versions know only this
    // annotation.
    const appArmor = {
      [`container.apparmor.security.beta.kubernetes.io/${CONTAINER}`]: 'unconfined',
    };
    requireLabels(this, props.labels ?? {}, ourLabels);
    requireAnnotations(this, props.annotations ?? {}, appArmor);
    const metadata = {
      name: this.name,
      namespace: this.namespace,
      labels: { ...props.labels, ...ourLabels },
      annotations: undefinedIfEmpty(props.annotations),
    };

    const script = readScript(this, __dirname, 'drop-in');
    new kplus.ConfigMap(this, 'ConfigMap', {
      metadata: {
        ...metadata,
        name: scriptName(this.name, script),
        annotations: { ...props.annotations, ...NO_SUBSTITUTION },
      },
      data: script.files,
      immutable: true,
    });
    new k8s.KubeNetworkPolicy(this, 'NetworkPolicy', {
      metadata,
      spec: { podSelector: { matchLabels: selector }, policyTypes: ['Ingress', 'Egress'] },
    });
    // No typed construct, because cdk8s-plus-28 does not know appArmorProfile and would drop it, also from a
    // JSON patch.
    this.daemonSet = new ApiObject(this, 'DaemonSet', {
      apiVersion: 'apps/v1',
      kind: 'DaemonSet',
      metadata,
      spec: {
        selector: { matchLabels: selector },
        revisionHistoryLimit: 3,
        // No probe, because a sleeping process cannot hang, and each exec probe would start another process.
        // A script that fails ends within moments, so a pod counts as available after it has run for longer
        // than that.
        minReadySeconds: 10,
        // A node keeps its drop-in while its pod is away.
        updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '10%' } },
        template: {
          metadata: {
            labels: { ...props.labels, ...selector },
            annotations: { ...props.annotations, ...appArmor },
          },
          spec: this.podSpec(props, script),
        },
      },
    });
    this.node.defaultChild = this.daemonSet;
  }

  private podSpec(props: OomPolicyDropInProps, script: Script): object {
    return {
      automountServiceAccountToken: false,
      priorityClassName: priorityClass(this, props.priorityClassName ?? ''),
      ...placement(this, props),
      // A signal does not leave a process namespace, so the pod must share that of systemd.
      hostPID: true,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 5,
      securityContext: { seccompProfile: { type: 'RuntimeDefault' } },
      containers: [
        {
          name: CONTAINER,
          ...imageOf(this, props),
          command: ['/bin/sh', `${SCRIPT_DIR}/drop-in.sh`],
          resources: {
            requests: { cpu: '5m', memory: '4Mi' },
            limits: { cpu: '100m', memory: '32Mi' },
          },
          securityContext: {
            ...rootWithoutCapabilities(this, props),
            // The runtime's profile denies signals to processes without a profile, such as systemd.
            appArmorProfile: { type: 'Unconfined' },
          },
          volumeMounts: [
            { name: 'script', mountPath: SCRIPT_DIR, readOnly: true },
            { name: 'systemd', mountPath: '/host/systemd/system' },
          ],
        },
      ],
      volumes: [
        { name: 'script', configMap: { name: scriptName(this.name, script), defaultMode: 0o444 } },
        // systemd creates it at boot. The kubelet must not create it, because programs take it as a sign of
        // systemd.
        { name: 'systemd', hostPath: { path: '/run/systemd/system', type: 'Directory' } },
      ],
    };
  }
}
