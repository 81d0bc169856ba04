import { Construct } from 'constructs';
import { ADMISSION_RESOURCES, admissionRules } from './admission-rules';
import { addClusterObject, clusterMetadata, requireVersion } from './cluster-objects';
import { DEFAULT_LABEL_PREFIX, requireLabelPrefix } from '../private/labels';
import { joinApp } from '../policy/synthesis';
import { usageError } from '../private/usage-error';
import { requireProps } from '../private/props';
import { requireDnsLabel, requireDnsSubdomain, requireMember } from '../private/validation';

/** https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/ */
const FIRST_MINOR_VERSION = 30;

/**
 * What happens to an object that breaks a rule.
 *
 * @see https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-actions
 */
export enum AdmissionAction {
  /** The API server refuses the request. Do not combine it with WARN, which would say everything twice. */
  DENY = 'Deny',

  /** The request goes through, and its sender gets a warning. */
  WARN = 'Warn',

  /** The request goes through, and the audit log has an annotation about it. */
  AUDIT = 'Audit',
}

/**
 * What happens to an object if the API server cannot evaluate the rules.
 *
 * @see https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#failure-policy
 */
export enum AdmissionFailurePolicy {
  /** The object counts as one that breaks a rule. */
  FAIL = 'Fail',

  /** The object goes through. */
  IGNORE = 'Ignore',
}

/**
 * Options of `OomKillModeAdmissionPolicy`.
 */
export interface OomKillModeAdmissionPolicyProps {
  /**
   * The name of the policy and of its binding: a DNS-1123 subdomain.
   *
   * @default "oom-kill-mode"
   */
  readonly name?: string;

  /**
   * The prefix of the pod label and annotation that the rules check, without the slash. It must
   * be the prefix of the agent.
   *
   * @default "cdk8s-oom-kill-mode"
   */
  readonly labelPrefix?: string;

  /**
   * The namespaces in which pods may opt in: DNS-1123 labels. In all others the API server
   * refuses the mode label on pods and workloads, with any value. You can still change and
   * delete an object that had the label before, as long as the value of the label stays, but
   * the object cannot create pods.
   *
   * @default pods may opt in everywhere
   */
  readonly allowedNamespaces?: string[];

  /**
   * Names of containers that something else adds to the pods later, such as `istio-proxy`:
   * DNS-1123 labels. The annotation may name them although the workload does not have them.
   *
   * @default []
   */
  readonly injectedContainers?: string[];

  /**
   * What happens to an object that breaks a rule. If the cluster already has opted-in
   * workloads, start with WARN and AUDIT.
   *
   * @default [AdmissionAction.DENY]
   */
  readonly validationActions?: AdmissionAction[];

  /**
   * What happens to an object if the API server cannot evaluate the rules.
   *
   * @default AdmissionFailurePolicy.FAIL, because the rules need no other program, and apply
   * only to objects with the label or the annotation. IGNORE would admit objects that exceed
   * the API server's cost limit
   */
  readonly failurePolicy?: AdmissionFailurePolicy;

  /**
   * The version of the cluster, such as "1.30" or "v1.33.2": at least 1.30, the
   * first with this API in v1.
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
 * Makes the API server refuse wrong labels and annotations, on Kubernetes 1.30 and later.
 *
 * It refuses these mistakes, which the agent would only log, and names the remedy:
 *
 * - a mode label that is neither `Single` nor `Group`,
 * - a containers annotation that is malformed: too long, or an entry that is not
 *   `name=Single` or `name=Group`,
 * - a name in the annotation that is none of the pod's containers, init containers and ephemeral containers,
 * - if `allowedNamespaces` is set, the label in any other namespace.
 *
 * It checks Pods and the pod templates of Deployments, StatefulSets, DaemonSets, ReplicaSets,
 * ReplicationControllers, Jobs and CronJobs, when they are created or updated. It allows deletions, changes
 * of the status, and updates that leave the label, the annotation and the containers as they were.
 *
 * Creates a ValidatingAdmissionPolicy and its binding; no pod, no webhook, no
 * certificate.
 *
 * The constructor throws, with the construct path, on a Kubernetes version before 1.30, invalid names,
 * prefix, labels, annotations and actions, and an empty `allowedNamespaces`. Synthesis fails if the cluster
 * (outermost chart) has another policy with the same name, or if the app has agents but none with this
 * prefix.
 *
 * @see https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
 *
 * @example
 * import { OomKillModeAdmissionPolicy } from 'cdk8s-oom-kill-mode';
 *
 * new OomKillModeAdmissionPolicy(chart, 'guard', {
 *   allowedNamespaces: ['databases', 'notebooks'],
 *   kubernetesVersion: '1.30',
 * });
 */
export class OomKillModeAdmissionPolicy extends Construct {
  /** The prefix of the pod label and annotation that the rules check. */
  public readonly labelPrefix: string;

  /** The name of the policy and of its binding. */
  public readonly name: string;

  public constructor(scope: Construct, id: string, options: OomKillModeAdmissionPolicyProps = {}) {
    super(scope, id);
    const props = requireProps(this, options, {
      name: 'string',
      labelPrefix: 'string',
      allowedNamespaces: 'strings',
      injectedContainers: 'strings',
      validationActions: 'strings',
      failurePolicy: 'string',
      kubernetesVersion: 'string',
      labels: 'map',
      annotations: 'map',
    });
    requireVersion(this, props.kubernetesVersion, 'ValidatingAdmissionPolicy', FIRST_MINOR_VERSION);
    this.name = requireDnsSubdomain(this, 'name', props.name ?? 'oom-kill-mode');
    this.labelPrefix = requireLabelPrefix(this, props.labelPrefix ?? DEFAULT_LABEL_PREFIX);
    joinApp(this, 'admission');
    const failurePolicy = props.failurePolicy ?? AdmissionFailurePolicy.FAIL;
    requireMember(this, 'failurePolicy', failurePolicy, AdmissionFailurePolicy);

    const { matchConditions, variables, validations } = admissionRules(
      this.labelPrefix,
      this.allowedNamespaces(props.allowedNamespaces),
      (props.injectedContainers ?? []).map((name) =>
        requireDnsLabel(this, 'injectedContainers', name),
      ),
    );
    const metadata = clusterMetadata(this, this.name, 'admission', props);
    addClusterObject(this, 'ValidatingAdmissionPolicy', metadata, {
      failurePolicy,
      matchConstraints: {
        matchPolicy: 'Equivalent',
        // Neither DELETE nor any subresource. The subresource for ephemeral containers only adds names, which
        // breaks no rule.
        resourceRules: ADMISSION_RESOURCES.map(({ apiGroup, resources }) => ({
          apiGroups: [apiGroup],
          apiVersions: ['v1'],
          operations: ['CREATE', 'UPDATE'],
          resources,
          // The API server would add this default. Some tools show a field that is added in a list as a
          // difference.
          scope: '*',
        })),
      },
      matchConditions,
      variables,
      validations,
    });
    addClusterObject(this, 'ValidatingAdmissionPolicyBinding', metadata, {
      policyName: this.name,
      validationActions: this.actions(props.validationActions ?? [AdmissionAction.DENY]),
    });
  }

  private allowedNamespaces(namespaces?: string[]): string[] | undefined {
    if (namespaces?.length === 0) {
      throw usageError(
        this,
        'allowedNamespaces is empty, so no pod could opt in',
        'the names of namespaces, or leave the option out',
      );
    }
    return namespaces?.map((namespace) => requireDnsLabel(this, 'allowedNamespaces', namespace));
  }

  private actions(actions: AdmissionAction[]): AdmissionAction[] {
    for (const action of actions) {
      requireMember(this, 'validationActions', action, AdmissionAction);
    }
    const set = new Set(actions);
    if (
      set.size === 0 ||
      set.size < actions.length ||
      (set.has(AdmissionAction.DENY) && set.has(AdmissionAction.WARN))
    ) {
      throw usageError(
        this,
        `validationActions is empty, repeats an action, or has both Deny and Warn: [${actions.join(', ')}]`,
        '[Deny], [Deny, Audit], [Warn], [Warn, Audit] or [Audit]',
      );
    }
    return actions;
  }
}
