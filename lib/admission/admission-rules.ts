import { LONGEST_CONTAINERS_ANNOTATION, containersAnnotation, modeLabel } from '../private/labels';

/** What the API server evaluates, in the Common Expression Language (CEL). */
export interface AdmissionRules {
  readonly matchConditions: readonly { readonly name: string; readonly expression: string }[];
  readonly variables: readonly { readonly name: string; readonly expression: string }[];
  readonly validations: readonly AdmissionRule[];
}

/**
 * One rule. The API server also evaluates `messageExpression` for valid objects, so it must not fail. If its
 * result is unusable (a line break, more than 5 KiB), the API server takes `message`.
 * https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/validator.go
 */
export interface AdmissionRule {
  readonly expression: string;
  readonly message: string;
  readonly messageExpression?: string;
  readonly reason: string;
}

/** The resources whose pods the policy checks: the kinds of Kubernetes that OomKillPolicy knows. */
export const ADMISSION_RESOURCES = [
  { apiGroup: '', resources: ['pods', 'replicationcontrollers'] },
  { apiGroup: 'apps', resources: ['daemonsets', 'deployments', 'replicasets', 'statefulsets'] },
  { apiGroup: 'batch', resources: ['cronjobs', 'jobs'] },
];

/** One entry of the annotation, as api.awk splits it. RE2 has no backtracking. */
const ENTRY = ' *[a-z0-9-]{1,63}=(Single|Group) *';
const WELL_FORMED = `^(${ENTRY}(,${ENTRY})*)?$`;

/**
 * Reads the mode, the annotation and the names of the containers, before and after an update. A rule applies
 * only if the update changes a value that the rule checks. So a user who cannot repair an object can still
 * scale it, or remove its finalizers. `settled` means that the annotation has not changed, and that the
 * label, without which it has no effect, is not new.
 *
 * A value that may be missing is a list with at most one element, which fits into a message without a test
 * for null.
 *
 * Cost: the API server stops one expression after 1,000,000 units, and all of them together, messages
 * included, after 10,000,000. The rules check the length first, so the others see at most 8192 characters.
 * That is some 18,000 units for the regular expression, 220,000 for the message about 8192 empty entries, 30
 * for each of at most 1024 well-formed entries, and one for each container.
 * https://github.com/google/cel-go/blob/master/interpreter/runtimecost.go
 */
export function admissionRules(
  prefix: string,
  allowedNamespaces: string[] | undefined,
  injectedContainers: string[],
): AdmissionRules {
  const label = modeLabel(prefix);
  const annotation = containersAnnotation(prefix);
  const write = `write ${annotation}: name=Single,other=Group instead`;
  return {
    // A matchCondition cannot use variables.
    matchConditions: [
      {
        name: 'has-label-or-annotation',
        expression: `[${template('object')}].exists(pod, ${hasKey('pod', 'labels', label)} || ${hasKey('pod', 'annotations', annotation)})`,
      },
    ],
    variables: [
      { name: 'pod', expression: template('object') },
      { name: 'oldPod', expression: `dyn(oldObject) == null ? dyn({}) : ${template('oldObject')}` },
      { name: 'mode', expression: value('variables.pod', 'labels', label) },
      { name: 'oldMode', expression: value('variables.oldPod', 'labels', label) },
      { name: 'overrides', expression: value('variables.pod', 'annotations', annotation) },
      { name: 'oldOverrides', expression: value('variables.oldPod', 'annotations', annotation) },
      {
        name: 'settled',
        expression: `variables.overrides == variables.oldOverrides && (variables.mode == [] || variables.oldMode != [])`,
      },
      { name: 'names', expression: names('variables.pod') },
      { name: 'oldNames', expression: names('variables.oldPod') },
      {
        name: 'tooLong',
        expression: `variables.overrides.exists(o, size(o) > ${LONGEST_CONTAINERS_ANNOTATION})`,
      },
      {
        name: 'entries',
        expression: `variables.tooLong || variables.overrides.all(o, o == '') ? [] : variables.overrides[0].split(',')`,
      },
      {
        name: 'wellFormed',
        expression: `!variables.tooLong && variables.overrides.all(o, o.matches('${WELL_FORMED}'))`,
      },
      {
        name: 'unknown',
        expression: `!variables.wellFormed ? [] : variables.entries.map(e, e.split('=')[0].trim()).filter(n, !(n in variables.names) && !(n in ${list(injectedContainers)}))`,
      },
    ],
    validations: [
      {
        expression: `variables.mode == variables.oldMode || variables.mode.all(m, m in ['Single', 'Group'])`,
        message: `${label} is neither Single nor Group; write one of them instead`,
        messageExpression: `'${label} is neither Single nor Group: "' + variables.mode.join(',') + '"; write one of them instead'`,
        reason: 'Invalid',
      },
      ...(allowedNamespaces ? [namespaceRule(label, allowedNamespaces)] : []),
      {
        expression: `variables.settled || variables.wellFormed`,
        message: `${annotation} is malformed, or longer than ${LONGEST_CONTAINERS_ANNOTATION} characters; ${write}`,
        messageExpression: `variables.tooLong ? '${annotation} is longer than ${LONGEST_CONTAINERS_ANNOTATION} characters; ${write}' : '${annotation} has entries that are not name=Single or name=Group: "' + variables.entries.filter(e, !e.matches('^${ENTRY}$')).join('", "') + '"; ${write}'`,
        reason: 'Invalid',
      },
      {
        expression: `variables.settled && variables.names == variables.oldNames || variables.unknown == []`,
        message: `${annotation} names containers that the pod does not have; write names of its containers instead`,
        messageExpression: `'${annotation} names containers that the pod does not have: ' + variables.unknown.join(', ') + '; write names of its containers instead: ' + variables.names.join(', ')`,
        reason: 'Invalid',
      },
    ],
  };
}

/** The list limits opting in. It does not limit objects that opted in before, or that opt out. */
function namespaceRule(label: string, namespaces: string[]): AdmissionRule {
  return {
    expression: `variables.mode == variables.oldMode || variables.mode == [] || request.namespace in ${list(namespaces)}`,
    message: `${label} is allowed in these namespaces only: ${namespaces.join(', ')}; remove the label, or ask an administrator to add this namespace to allowedNamespaces`,
    reason: 'Forbidden',
  };
}

/**
 * The pod template of an object, or a Pod itself. The API server checks the types of each kind. Without dyn()
 * it would complain, in the policy's status, about fields that only other kinds have. Only a
 * ReplicationController may have no template.
 */
function template(object: string): string {
  const it = `dyn(${object})`;
  return `${it}.kind == 'Pod' ? ${it} : ${it}.kind == 'CronJob' ? ${it}.spec.jobTemplate.spec.template : has(${it}.spec.template) ? ${it}.spec.template : dyn({})`;
}

function hasKey(pod: string, map: string, key: string): string {
  return `has(${pod}.metadata) && has(${pod}.metadata.${map}) && '${key}' in ${pod}.metadata.${map}`;
}

/** A list with the value, or an empty list. */
function value(pod: string, map: string, key: string): string {
  return `${hasKey(pod, map, key)} ? [string(${pod}.metadata.${map}['${key}'])] : []`;
}

function names(pod: string): string {
  const lists = ['containers', 'initContainers', 'ephemeralContainers'].map(
    (field) => `(has(${pod}.spec) && has(${pod}.spec.${field}) ? ${pod}.spec.${field} : [])`,
  );
  return `(${lists.join(' + ')}).map(c, string(c.name))`;
}

/** A CEL list of names. The names contain no quote and no backslash. */
function list(values: string[]): string {
  return `[${values.map((v) => `'${v}'`).join(', ')}]`;
}
