import { ApiObject, Chart } from 'cdk8s';
import { IConstruct } from 'constructs';
import { CarriedPolicies, roleOf, policiesBelow } from './own-constructs';
import { NodeTerms } from '../private/nodes';
import { Policies, PolicyChoices, userKindsOf } from './policy-choices';
import { UserKind } from './pods';

/** The properties of an agent that the checks need. */
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

  /** The outermost chart. An app for several clusters has one for each; names must be unique within one. */
  readonly cluster: IConstruct;

  /** The construct of this library that it belongs to. */
  readonly owner?: IConstruct;

  /** The policies above it, by prefix. */
  readonly policies: readonly Governing[];

  /** Whether it belongs to an agent, whose pods are never opted in. */
  readonly isOfAgent: boolean;
}

/** The policies of one prefix above an object, and their `workloadKinds`. */
export interface Governing {
  readonly policies: Policies;
  readonly userKinds: readonly UserKind[];
}

/** The objects below a policy. */
export interface Scope {
  readonly objects: Surveyed[];

  /** The cluster of the target. A policy of the whole app has none. */
  readonly cluster?: IConstruct;
  hasAgent: boolean;
}

/** A construct that needs an agent with its prefix. */
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

/** Finds everything in an app in one walk over its tree, and renders nothing. */
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
      // The pods of a drop-in are never opted in.
      return { ...inside, policies: [] };
    }
    if (role === 'admission') {
      const { labelPrefix: prefix } = construct as SurveyedAgent;
      this.admissionPolicies.push({ construct, prefix, clusters: new Set([cluster]) });
    }
    // The monitoring belongs to the cluster of its agents, whatever its own chart.
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
        return { policies, userKinds: userKindsOf(policies) };
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
