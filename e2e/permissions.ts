import { Check, check } from './checks';
import { Kubectl, KubernetesObject, list } from './kubectl';

/** Without a namespace: in all of them, or of the whole cluster. */
interface Permission {
  readonly verb: string;
  readonly group?: string;
  readonly resource: string;
  readonly subresource?: string;
  readonly namespace?: string;
}

/** The question in the words of kubectl, for a user to try again. */
function canI({ verb, group = '', resource, subresource, namespace }: Permission): string {
  return [
    `kubectl auth can-i ${verb} ${[resource, group].filter(Boolean).join('.')}`,
    subresource === undefined ? '' : ` --subresource=${subresource}`,
    namespace === undefined ? ' --all-namespaces' : ` --namespace ${namespace}`,
  ].join('');
}

/** What it takes to watch the pods of a namespace and to read their logs. */
export function toWatch(namespace: string): Permission[] {
  const asked = [{ verb: 'list' }, { verb: 'get' }, { verb: 'get', subresource: 'log' }];
  return asked.map((one) => ({ ...one, resource: 'pods', namespace }));
}

/** What it takes to do something with objects. Nobody may grant what they do not have. */
export function toManage(objects: readonly KubernetesObject[], verbs: string[]): Permission[] {
  const rules = objects.flatMap((object) => {
    const [group = ''] = object.apiVersion.includes('/') ? object.apiVersion.split('/') : [];
    const resource = `${object.kind.toLowerCase()}s`.replace(/ys$/, 'ies');
    const { namespace } = object.metadata;
    const granted = object.kind === 'ClusterRole' ? (object as { rules?: Rule[] }).rules : [];
    return [{ apiGroups: [group], resources: [resource], verbs, namespace }, ...(granted ?? [])];
  });
  const all = rules.flatMap(({ apiGroups: [group], resources, verbs, namespace }: Rule) =>
    verbs.flatMap((verb) => resources.map((resource) => ({ verb, group, resource, namespace }))),
  );
  return [...new Map(all.map((one) => [canI(one), one])).values()];
}

interface Rule {
  readonly apiGroups: string[];
  readonly resources: string[];
  readonly verbs: string[];
  readonly namespace?: string;
}

/** Asks for permissions, all of them with one kubectl. What is missing is told as commands. */
export async function permission(
  kubectl: Kubectl,
  purpose: string,
  asked: readonly Permission[],
): Promise<Check> {
  const reviews = asked.map((resourceAttributes) => ({
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SelfSubjectAccessReview',
    spec: { resourceAttributes },
  }));
  const print = ['-o', 'jsonpath={.status.allowed}{"\\n"}'];
  const answers = (await kubectl.text(['create', '-f', '-', ...print], list(reviews))).split('\n');
  const missing = asked.filter((_, index) => answers[index] !== 'true').map(canI);
  return check(
    `permission to ${purpose}`,
    missing.length > 0 ? [`"no" to: ${missing.join('; ')}`] : [],
    `${asked.length} asked for, all there`,
  );
}
