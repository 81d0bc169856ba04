import { OomKillMode } from '../policy/oom-kill-mode';
import { containersAnnotation, modeLabel } from '../private/labels';

/** The default modes, and the pods that get them. */
export interface Defaults {
  readonly prefix: string;
  readonly mode: OomKillMode;
  readonly containers: { readonly [name: string]: OomKillMode };
  readonly injectedContainers: readonly string[];
  readonly namespaces?: readonly string[];
  readonly namespaceLabels: { readonly [key: string]: string };
  readonly podLabels: { readonly [key: string]: string };
}

/** The pods of this library, by their label `app.kubernetes.io/name`. The policy never labels them. */
const OWN_PODS = ['cdk8s-oom-kill-mode', 'oom-policy-drop-in'];

/**
 * Kubernetes reserves the first prefix for its own namespaces, and OpenShift both.
 * https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#initial-namespaces
 * https://docs.redhat.com/en/documentation/openshift_container_platform/4.19/html/building_applications/projects
 */
const SYSTEM_NAMESPACES = ['kube-', 'openshift-'];

/** The pods that the API server changes: new pods without a mode label. */
export function defaultsConstraints(defaults: Defaults): object {
  const { namespaces, namespaceLabels, podLabels, prefix } = defaults;
  return {
    matchPolicy: 'Equivalent',
    namespaceSelector: {
      ...(Object.keys(namespaceLabels).length > 0 ? { matchLabels: namespaceLabels } : {}),
      ...(namespaces === undefined
        ? {}
        : {
            matchExpressions: [
              { key: 'kubernetes.io/metadata.name', operator: 'In', values: namespaces },
            ],
          }),
    },
    objectSelector: {
      ...(Object.keys(podLabels).length > 0 ? { matchLabels: podLabels } : {}),
      matchExpressions: [
        { key: modeLabel(prefix), operator: 'DoesNotExist' },
        { key: 'app.kubernetes.io/name', operator: 'NotIn', values: OWN_PODS },
      ],
    },
    resourceRules: [
      {
        apiGroups: [''],
        apiVersions: ['v1'],
        operations: ['CREATE'],
        resources: ['pods'],
        // The API server would add this default. Some tools show a field that is added in a list as a
        // difference.
        scope: '*',
      },
    ],
  };
}

/** Leaves out namespaces of the system, unless the user names the namespaces. */
export function defaultsConditions({ namespaces }: Defaults): object[] | undefined {
  return namespaces === undefined
    ? [
        {
          name: 'outside-system-namespaces',
          expression: SYSTEM_NAMESPACES.map(
            (prefix) => `!request.namespace.startsWith('${prefix}')`,
          ).join(' && '),
        },
      ]
    : undefined;
}

/**
 * What the API server adds to a pod, in the Common Expression Language (CEL). A pod that has the annotation
 * keeps it. The agent reports a name that the pod does not have, and `OomKillModeAdmissionPolicy` refuses it.
 * So the API server writes only names that the pod has, and names of containers that are injected later.
 * https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
 */
export function defaultsMutations(defaults: Defaults): {
  readonly variables?: object[];
  readonly mutations: object[];
} {
  const { prefix, mode, containers, injectedContainers } = defaults;
  const annotation = containersAnnotation(prefix);
  const labels = `labels: {'${modeLabel(prefix)}': '${mode}'}`;
  const names = Object.keys(containers).sort();
  if (names.length === 0) {
    return { mutations: [mutation(labels)] };
  }
  const entries = names.map((name) => `'${name}=${containers[name]}'`).join(', ');
  const injected = injectedContainers.map((name) => `'${name}'`).join(', ');
  return {
    variables: [
      {
        name: 'names',
        expression: `object.spec.containers.map(c, c.name) + (has(object.spec.initContainers) ? object.spec.initContainers.map(c, c.name) : []) + [${injected}]`,
      },
      {
        name: 'entries',
        expression: `has(object.metadata.annotations) && '${annotation}' in object.metadata.annotations ? [] : [${entries}].filter(e, e.split('=')[0] in variables.names)`,
      },
    ],
    mutations: [
      mutation(
        `${labels}, annotations: variables.entries == [] ? {} : {'${annotation}': variables.entries.join(',')}`,
      ),
    ],
  };
}

function mutation(metadata: string): object {
  return {
    patchType: 'ApplyConfiguration',
    applyConfiguration: { expression: `Object{metadata: Object.metadata{${metadata}}}` },
  };
}
