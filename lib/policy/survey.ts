import { ApiObject, Chart } from 'cdk8s';
import { IConstruct } from 'constructs';
import { CarriedPolicies, roleOf, policiesBelow } from './own-constructs';
import { NodeTerms } from '../private/nodes';
import { Policies, PolicyChoices, toldKinds } from './policy-choices';
import { ToldKind } from './pods';

/** What of an agent the others need to know. */
export interface SurveyedAgent extends IConstruct {
  readonly labelPrefix: string;
  readonly _nodes: NodeTerms;
  readonly _createsNamespace: boolean;
  readonly namespace: string;
}

interface SurveyedMonitoring extends IConstruct {
  readonly _agents: readonly [IConstruct, ...IConstruct[]];
}

/** An object of the app. */
export interface Surveyed {
  readonly object: ApiObject;

  /** The outermost chart: an app for several clusters has a chart for each. Names, namespaces and labels mean something within one. */
  readonly cluster: IConstruct;

  /** The construct of ours that it belongs to. */
  readonly owner?: IConstruct;

  /** The policies above it, by prefix. */
  readonly policies: readonly Governing[];

  /** Whether it belongs to an agent, whose pods nobody opts in. */
  readonly isOfAgent: boolean;
}

/** The policies of one prefix above an object, and what they say about kinds. */
export interface Governing {
  readonly policies: Policies;
  readonly told: readonly ToldKind[];
}

/** What is below a policy. */
export interface Scope {
  readonly objects: Surveyed[];

  /** The cluster of the target, if it is in one: a policy of the app is above several. */
  readonly cluster?: IConstruct;
  hasAgent: boolean;
}

/** Something that an agent is to obey. */
export interface PrefixUse {
  readonly construct: IConstruct;
  readonly prefix: string;
  readonly clusters: ReadonlySet<IConstruct>;
}

interface Above {
  readonly cluster?: IConstruct;
  readonly owner?: IConstruct;
  readonly policies: readonly Governing[];
  readonly agent?: IConstruct;
}

/** All that is in an app, in one walk over its tree. Nothing is rendered. */
export class Survey {
  public readonly objects: Surveyed[] = [];
  public readonly charts: Chart[] = [];
  public readonly scopes = new Map<PolicyChoices, Scope>();
  public readonly agents = new Map<SurveyedAgent, IConstruct>();
  public readonly uses: readonly PrefixUse[];
  private readonly admissionPolicies: PrefixUse[] = [];
  private readonly policies?: CarriedPolicies;

  public constructor(root: IConstruct) {
    this.policies = policiesBelow(root);
    this.visit(root, { policies: [] });
    this.uses = [
      ...[...this.scopes].map(([{ target, prefix }, { cluster, objects }]) => ({
        construct: target,
        prefix,
        clusters: new Set(cluster ? [cluster] : objects.map((one) => one.cluster)),
      })),
      ...this.admissionPolicies,
    ];
  }

  private visit(construct: IConstruct, outer: Above): void {
    let above = outer;
    if (Chart.isChart(construct)) {
      this.charts.push(construct);
      above = above.cluster ? above : { ...above, cluster: construct };
    }
    const role = roleOf(construct);
    if (role !== undefined) {
      above = this.enter(construct, role, above);
    }
    const own = this.policies?.get(construct);
    if (own) {
      above = {
        ...above,
        policies: this.add(
          own.map((one) => one._choices),
          above,
        ),
      };
    }
    if (ApiObject.isApiObject(construct)) {
      this.found(construct, above);
    }
    for (const child of construct.node.children) {
      this.visit(child, above);
    }
  }

  private enter(construct: IConstruct, role: string, above: Above): Above {
    const inside = { ...above, owner: above.owner ?? construct };
    const cluster = above.cluster ?? construct;
    if (role === 'agent') {
      this.agents.set(construct as SurveyedAgent, cluster);
      return { ...inside, agent: construct };
    }
    if (role === 'drop-in') {
      // Nobody opts in the pods that repair a node.
      return { ...inside, policies: [] };
    }
    if (role === 'admission') {
      const { labelPrefix: prefix } = construct as SurveyedAgent;
      this.admissionPolicies.push({ construct, prefix, clusters: new Set([cluster]) });
    }
    // Wherever monitoring is written down, it is where its agents are.
    return role === 'monitoring'
      ? { ...inside, cluster: outermostChart((construct as SurveyedMonitoring)._agents[0]) }
      : inside;
  }

  private add(own: PolicyChoices[], above: Above): Governing[] {
    const prefixes = new Set(own.map(({ prefix }) => prefix));
    for (const policy of own) {
      this.scopes.set(policy, {
        objects: [],
        cluster: above.cluster,
        hasAgent: above.agent !== undefined,
      });
    }
    return [
      ...above.policies.filter(({ policies: [nearest] }) => !prefixes.has(nearest.prefix)),
      ...own.map((policy): Governing => {
        const outer = above.policies.find(({ policies: [one] }) => one.prefix === policy.prefix);
        const policies: Policies = [policy, ...(outer?.policies ?? [])];
        return { policies, told: toldKinds(policies) };
      }),
    ];
  }

  private found(object: ApiObject, { cluster, owner, policies, agent }: Above): void {
    const surveyed: Surveyed = {
      object,
      cluster: cluster ?? object,
      owner,
      policies,
      isOfAgent: agent !== undefined,
    };
    this.objects.push(surveyed);
    for (const { policies: all } of policies) {
      for (const policy of all) {
        const scope = this.scopes.get(policy) as Scope;
        if (agent) {
          scope.hasAgent = true;
        } else {
          scope.objects.push(surveyed);
        }
      }
    }
  }
}

/** The cluster of a construct. */
export function outermostChart(construct: IConstruct): IConstruct {
  return construct.node.scopes.find((scope) => Chart.isChart(scope)) ?? construct;
}
