import { LONGEST_CONTAINERS_ANNOTATION, containersAnnotation, modeLabel } from '../private/labels';

/** What the API server evaluates, in the Common Expression Language (CEL). */
export interface AdmissionRules {
  readonly matchConditions: readonly { readonly name: string; readonly expression: string }[];
  readonly variables: readonly { readonly name: string; readonly expression: string }[];
  readonly validations: readonly AdmissionRule[];
}

/**
 * One demand. `messageExpression` is evaluated for good objects, too, so it must not fail; where it is
 * of no use (a line break in it, more than 5 KiB) the API server takes `message`.
 * https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/validator.go
 */
export interface AdmissionRule {
  readonly expression: string;
  readonly message: string;
  readonly messageExpression?: string;
  readonly reason: string;
}

/** The resources whose pods are looked at: the kinds that OomKillPolicy knows. */
export const ADMISSION_RESOURCES = [
  { apiGroup: '', resources: ['pods', 'replicationcontrollers'] },
  { apiGroup: 'apps', resources: ['daemonsets', 'deployments', 'replicasets', 'statefulsets'] },
  { apiGroup: 'batch', resources: ['cronjobs', 'jobs'] },
];

/** One entry of the annotation, and the whole of it, as api.awk splits it; RE2 has no backtracking. */
const ENTRY = ' *[a-z0-9-]{1,63}=(Single|Group) *';
const WELL_FORMED = `^(${ENTRY}(,${ENTRY})*)?$`;

/**
 * Of each object the mode, the annotation and the names of the containers are read, before and after an
 * update: a rule speaks up only if what it is about has changed, so that who cannot repair an object can
 * still scale it, or take its finalizers off. The annotation is settled if it says what it said before,
 * unless the label, without which it means nothing, is new.
 *
 * What may be missing is a list of one value or none, which fits into a message without a test for null.
 *
 * Cost: the API server gives up on an expression after 1,000,000 units, and on all of them together
 * after 10,000,000, whatever the messages cost included. The length comes first, so that nothing else
 * looks at more than 8192 characters: that is some 18,000 units for the regular expression, 220,000 for
 * the message about 8192 empty entries, and for at most 1024 well-formed ones 30 units each, and one for
 * each container.
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
    // In a matchCondition there are no variables yet.
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

/** To opt in is what the list is about; who opted in before, or opts out, is left in peace. */
function namespaceRule(label: string, namespaces: string[]): AdmissionRule {
  return {
    expression: `variables.mode == variables.oldMode || variables.mode == [] || request.namespace in ${list(namespaces)}`,
    message: `${label} is allowed in these namespaces only: ${namespaces.join(', ')}; remove the label, or ask an administrator to add this namespace to allowedNamespaces`,
    reason: 'Forbidden',
  };
}

/**
 * The pod template of an object, or of a Pod itself. Without dyn() the API server's type check, which
 * knows the fields of each kind, would complain about those of the others in the policy's status.
 * A ReplicationController is the one that may have none.
 */
function template(object: string): string {
  const it = `dyn(${object})`;
  return `${it}.kind == 'Pod' ? ${it} : ${it}.kind == 'CronJob' ? ${it}.spec.jobTemplate.spec.template : has(${it}.spec.template) ? ${it}.spec.template : dyn({})`;
}

function hasKey(pod: string, map: string, key: string): string {
  return `has(${pod}.metadata) && has(${pod}.metadata.${map}) && '${key}' in ${pod}.metadata.${map}`;
}

/** A list of the one value, or of none. */
function value(pod: string, map: string, key: string): string {
  return `${hasKey(pod, map, key)} ? [string(${pod}.metadata.${map}['${key}'])] : []`;
}

function names(pod: string): string {
  const lists = ['containers', 'initContainers', 'ephemeralContainers'].map(
    (field) => `(has(${pod}.spec) && has(${pod}.spec.${field}) ? ${pod}.spec.${field} : [])`,
  );
  return `(${lists.join(' + ')}).map(c, string(c.name))`;
}

/** A list of names, none of which has a quote or a backslash. */
function list(values: string[]): string {
  return `[${values.map((v) => `'${v}'`).join(', ')}]`;
}
