import { Construct } from 'constructs';
import { OomKillMode } from '../policy/oom-kill-mode';
import { joinApp } from '../policy/synthesis';
import {
  DEFAULT_LABEL_PREFIX,
  LONGEST_CONTAINERS_ANNOTATION,
  modeLabel,
  requireLabelPrefix,
} from '../private/labels';
import { requireProps } from '../private/props';
import { usageError } from '../private/usage-error';
import {
  requireDnsLabel,
  requireDnsSubdomain,
  requireLabels,
  requireMember,
} from '../private/validation';
import { addClusterObject, clusterMetadata, requireVersion } from './cluster-objects';
import {
  Defaults,
  defaultsConditions,
  defaultsConstraints,
  defaultsMutations,
} from './defaults-rules';
import { AdmissionFailurePolicy } from './oom-kill-mode-admission-policy';

/** https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/ */
const FIRST_MINOR_VERSION = 36;

/**
 * Options of `OomKillModeDefaults`.
 *
 * At least one of `namespaces`, `namespaceLabels` and `podLabels` must be set. A pod gets the default if it
 * matches all that are set.
 */
export interface OomKillModeDefaultsProps {
  /**
   * The mode of pods that have no mode label.
   */
  readonly mode: OomKillMode;

  /**
   * The modes of single containers, by name. The policy writes those that are containers or
   * init containers of the pod into the containers annotation, unless the pod has the
   * annotation.
   *
   * @default {}
   */
  readonly containers?: { [name: string]: OomKillMode };

  /**
   * Names in `containers` that a webhook adds to the pods later, such as `istio-proxy`. The
   * policy always writes them, because the API server evaluates it before it calls webhooks.
   *
   * @default []
   */
  readonly injectedContainers?: string[];

  /**
   * The namespaces of the pods: DNS-1123 labels. Pods in namespaces of the system get the
   * default only if you name these namespaces here.
   *
   * @default all, except those that begin with `kube-` or `openshift-`
   */
  readonly namespaces?: string[];

  /**
   * Labels that the namespaces of the pods must have.
   *
   * @default {}
   */
  readonly namespaceLabels?: { [key: string]: string };

  /**
   * Labels that the pods must have.
   *
   * @default {}
   */
  readonly podLabels?: { [key: string]: string };

  /**
   * The name of the policy and of its binding: a DNS-1123 subdomain.
   *
   * @default "oom-kill-mode-defaults"
   */
  readonly name?: string;

  /**
   * The prefix of the pod label and annotation to write, without the slash. It must be the
   * prefix of the agent.
   *
   * @default "cdk8s-oom-kill-mode"
   */
  readonly labelPrefix?: string;

  /**
   * What happens to a pod if the API server cannot evaluate the policy.
   *
   * @default AdmissionFailurePolicy.IGNORE, because a pod with the mode of its node is better
   * than no pod
   */
  readonly failurePolicy?: AdmissionFailurePolicy;

  /**
   * The version of the cluster, such as "1.36" or "v1.36.1": at least 1.36, the first
   * with this API in v1.
   *
   * @default the version is not checked, and an older cluster refuses the manifests
   */
  readonly kubernetesVersion?: string;

  /**
   * Labels to add to both objects.
   *
   * @default {}
   */
  readonly labels?: { [key: string]: string };

  /**
   * Annotations to add to both objects.
   *
   * @default {}
   */
  readonly annotations?: { [key: string]: string };
}

/**
 * Opts in pods of charts that nobody edits, on Kubernetes 1.36 and later.
 *
 * The API server adds the mode label, and the containers annotation, to new pods of the given namespaces and
 * labels. Use it if no field of a chart or of a custom resource sets the labels of the pods. A pod with the
 * mode label keeps it, and gets nothing else. A pod with the annotation keeps it. The pods of this library
 * are never changed.
 *
 * Existing pods stay as they are. A Deployment gets opted-in pods when it is restarted, and does not change
 * itself.
 *
 * Creates a MutatingAdmissionPolicy and its binding; no pod, no webhook, no
 * certificate, no permission. An API server before 1.36 does not know these kinds in
 * v1, and `kubectl apply` says "no matches for kind".
 *
 * Several of them in one cluster need different names, and should select different pods, because the first
 * one that the API server evaluates decides.
 *
 * The constructor throws, with the construct path, on a Kubernetes version before 1.36, invalid modes, names,
 * prefix, labels and annotations, if no option selects the pods, and on an injected container without a mode.
 * Synthesis fails if the cluster (outermost chart) has another policy with the same name, or if the app has
 * agents but none with this prefix.
 *
 * @see https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
 *
 * @example
 * import { OomKillMode, OomKillModeDefaults } from 'cdk8s-oom-kill-mode';
 *
 * new OomKillModeDefaults(chart, 'notebooks', {
 *   mode: OomKillMode.SINGLE,
 *   namespaces: ['jupyterhub'],
 *   podLabels: { component: 'singleuser-server' },
 * });
 */
export class OomKillModeDefaults extends Construct {
  /** The prefix of the pod label and annotation that the policy writes. */
  public readonly labelPrefix: string;

  /** The name of the policy and of its binding. */
  public readonly name: string;

  public constructor(scope: Construct, id: string, options: OomKillModeDefaultsProps) {
    super(scope, id);
    const props = requireProps(this, options, {
      mode: 'string!',
      containers: 'map',
      injectedContainers: 'strings',
      namespaces: 'strings',
      namespaceLabels: 'map',
      podLabels: 'map',
      name: 'string',
      labelPrefix: 'string',
      failurePolicy: 'string',
      kubernetesVersion: 'string',
      labels: 'map',
      annotations: 'map',
    });
    requireVersion(this, props.kubernetesVersion, 'MutatingAdmissionPolicy', FIRST_MINOR_VERSION);
    this.name = requireDnsSubdomain(this, 'name', props.name ?? 'oom-kill-mode-defaults');
    this.labelPrefix = requireLabelPrefix(this, props.labelPrefix ?? DEFAULT_LABEL_PREFIX);
    joinApp(this, 'admission');
    const failurePolicy = props.failurePolicy ?? AdmissionFailurePolicy.IGNORE;
    requireMember(this, 'failurePolicy', failurePolicy, AdmissionFailurePolicy);

    const metadata = clusterMetadata(this, this.name, 'defaults', props);
    const defaults = this.defaults(props);
    addClusterObject(this, 'MutatingAdmissionPolicy', metadata, {
      failurePolicy,
      // A second evaluation would find the label of the first, and do nothing.
      reinvocationPolicy: 'Never',
      matchConstraints: defaultsConstraints(defaults),
      matchConditions: defaultsConditions(defaults),
      ...defaultsMutations(defaults),
    });
    addClusterObject(this, 'MutatingAdmissionPolicyBinding', metadata, { policyName: this.name });
  }

  private defaults(props: OomKillModeDefaultsProps): Defaults {
    const { mode, namespaces, containers = {}, injectedContainers = [] } = props;
    const { namespaceLabels = {}, podLabels = {} } = props;
    const own = { [modeLabel(this.labelPrefix)]: '' };
    requireMember(this, 'mode', mode, OomKillMode);
    requireLabels(this, namespaceLabels, {}, 'namespaceLabels');
    requireLabels(this, podLabels, own, 'podLabels');
    namespaces?.forEach((namespace) => requireDnsLabel(this, 'namespaces', namespace));
    if (
      namespaces?.length === 0 ||
      Object.keys({ ...namespaceLabels, ...podLabels }).length + (namespaces?.length ?? 0) === 0
    ) {
      throw usageError(
        this,
        'namespaces is an empty list, or no option selects the pods',
        'namespaces: ["jupyterhub"], namespaceLabels or podLabels',
      );
    }
    for (const [name, its] of Object.entries(containers)) {
      requireDnsLabel(this, 'containers', name);
      requireMember(this, `containers.${name}`, its, OomKillMode);
    }
    const entries = Object.entries(containers).map(([name, its]) => `${name}=${its}`);
    if (entries.join(',').length > LONGEST_CONTAINERS_ANNOTATION) {
      throw usageError(
        this,
        `the annotation for containers would have more than ${LONGEST_CONTAINERS_ANNOTATION} characters`,
        'fewer containers',
      );
    }
    for (const name of injectedContainers) {
      if (!(name in containers)) {
        throw usageError(
          this,
          `injectedContainers has ${JSON.stringify(name)}, but containers has no mode for it`,
          'its mode in containers, or leave the name out',
        );
      }
    }
    const { labelPrefix: prefix } = this;
    return { prefix, mode, containers, injectedContainers, namespaces, namespaceLabels, podLabels };
  }
}
