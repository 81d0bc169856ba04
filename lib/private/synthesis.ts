import { ApiObject } from 'cdk8s';
import { IConstruct } from 'constructs';
import { OomKillReportEntry } from '../oom-kill-report';
import {
  prefixesOf,
  requireNamespaces,
  requireNoChartLabels,
  requireOwnNodes,
  requirePrefixes,
  requireUnique,
} from './app-checks';
import { Json, apiGroup, pointerOf } from './json';
import { WORKLOAD_KINDS, knownKind } from './known-kinds';
import { Mark, markOf, setMark } from './marks';
import { misuse } from './misuse';
import { given, hasOwn } from './props';
import {
  modeOf,
  parseContainers,
  readContainers,
  readMode,
  requireReadable,
  writeMarks,
} from './pod-marks';
import { Manifest, NO_PODS, PodMetadata, ToldKind, manifestsOf } from './pods';
import { Policies, PolicyChoices, PodMarks, marksFor, nameOf } from './policy-choices';
import { Scope, Survey, Surveyed } from './survey';

const ATTACHED = Symbol.for('cdk8s-oom-kill-mode.synthesis');

/** Makes a construct one of ours, and its app one whose objects are looked at. */
export function joinApp(construct: IConstruct, mark: Mark): void {
  setMark(construct, mark);
  attachTo(construct.node.root);
}

/** Has every synthesis of an app begin with a look at all of it. */
export function attachTo(root: IConstruct): void {
  if (ATTACHED in root) {
    return;
  }
  Object.defineProperty(root, ATTACHED, { value: true });
  const syntheses = new Syntheses(root);
  root.node.addValidation({
    validate: () => {
      syntheses.validated();
      return [];
    },
  });
  for (const name of ['synth', 'synthYaml']) {
    const original = (root as unknown as Record<string, unknown>)[name];
    if (typeof original === 'function') {
      const value = function (this: unknown, ...args: unknown[]): unknown {
        return syntheses.ofApp(() => Reflect.apply(original, this, args) as unknown);
      };
      Object.defineProperty(root, name, { value, configurable: true, writable: true });
    }
  }
}

/**
 * The syntheses of an app, one after the other. `synth()` and `synthYaml()` render an app chart by chart and validate
 * all of it before each: that is one synthesis all the same. A chart that is rendered by itself, as a test does it, is
 * a synthesis of its own.
 */
class Syntheses {
  private current?: Synthesis;
  private isOfApp = false;

  public constructor(private readonly root: IConstruct) {}

  public validated(): void {
    if (!this.isOfApp || !this.current) {
      this.end();
      this.current = new Synthesis(this.root, this.isOfApp && isReportWanted());
      this.current.begin();
    }
  }

  public ofApp<T>(synth: () => T): T {
    if (this.isOfApp) {
      return synth();
    }
    this.end();
    this.isOfApp = true;
    try {
      const result = synth();
      if (isReportWanted()) {
        process.stderr.write(tableOf(this.current?.report() ?? []));
      }
      return result;
    } finally {
      this.isOfApp = false;
      this.end();
    }
  }

  private end(): void {
    this.current?.end();
    this.current = undefined;
  }
}

function isReportWanted(): boolean {
  return !['', '0', undefined].includes(process.env['OOM_KILL_POLICY_REPORT']);
}

/**
 * What policies mean for the objects below a construct, or, if a policy is given, what that policy means. The objects
 * are rendered for it.
 */
export function reportOf(construct: IConstruct, policy?: PolicyChoices): OomKillReportEntry[] {
  const { path } = construct.node;
  return new Synthesis(construct.node.root, true)
    .report(policy)
    .filter((entry) => path === '' || `${entry.path}/`.startsWith(`${path}/`));
}

const OWN = Symbol.for('cdk8s-oom-kill-mode.own-rendering');

/** Asks a synthesis for the manifest of an object. It knows which objects had a `toJson` of their own. */
type ToJson = ApiObject['toJson'] & { [OWN]?: Map<ApiObject, ApiObject['toJson']> };

/** How cdk8s, or the user, renders an object, without what policies add. */
function plainToJson(object: ApiObject): ApiObject['toJson'] {
  /* eslint-disable @typescript-eslint/unbound-method -- it is called with the object */
  const toJson: ToJson = object.toJson;
  return toJson[OWN] === undefined
    ? toJson
    : (toJson[OWN].get(object) ?? (Object.getPrototypeOf(object) as ApiObject).toJson);
  /* eslint-enable */
}

/** What was decided about some pods of a manifest, or about one without pods. */
interface Decision {
  readonly manifest: Manifest;
  readonly policy?: PolicyChoices;
  readonly pods?: PodMetadata;
  readonly marks?: PodMarks;
  readonly untouched?: string;
}

/**
 * One synthesis: it surveys the tree once, renders each object once, decides, and is thrown away. What a user adds to
 * a workload, JSON patches, `Lazy` values and resolvers included, is in what cdk8s renders, and only there; so an
 * object is asked for its manifest, and hands on what the synthesis makes of it.
 */
class Synthesis {
  private readonly survey: Survey;
  private readonly prefixes: Set<string>;
  private readonly rendered = new Map<Surveyed, Json | undefined>();
  private readonly decisions = new Map<Surveyed, Decision[]>();
  private isChecked = false;

  public constructor(
    root: IConstruct,
    private readonly isReported: boolean,
  ) {
    this.survey = new Survey(root);
    this.prefixes = prefixesOf(this.survey);
    requirePrefixes(this.survey);
    requireNoChartLabels(this.survey.charts, this.prefixes);
    requireOwnNodes(this.survey);
    for (const [policy, scope] of this.survey.scopes) {
      requireChoice(policy);
      if (scope.objects.length === 0) {
        this.requireWorkload(policy, scope);
      }
    }
  }

  public begin(): void {
    const byObject = new Map(this.survey.objects.map((one) => [one.object, one]));
    const own = new Map<ApiObject, ApiObject['toJson']>();
    const manifest = (object: ApiObject) => this.manifest(byObject.get(object) as Surveyed);
    const toJson: ToJson = function (this: ApiObject) {
      return manifest(this);
    };
    toJson[OWN] = own;
    for (const { object } of this.survey.objects) {
      if (hasOwn(object, 'toJson')) {
        own.set(object, plainToJson(object));
      }
      object.toJson = toJson;
    }
  }

  public end(): void {
    for (const { object } of this.survey.objects) {
      const own = (object.toJson as ToJson)[OWN]?.get(object);
      delete (object as { toJson?: unknown }).toJson;
      if (own) {
        object.toJson = own;
      }
    }
  }

  public report(policy?: PolicyChoices): OomKillReportEntry[] {
    for (const one of this.survey.objects) {
      if (!this.decisions.has(one)) {
        this.manifest(one);
      }
    }
    return this.survey.objects
      .flatMap((one) => this.reported(one, policy))
      .sort((a, b) => compare(a.path, b.path) || compare(a.pods ?? '', b.pods ?? ''));
  }

  private reported(one: Surveyed, policy?: PolicyChoices): OomKillReportEntry[] {
    const decisions = this.decisions.get(one) ?? [];
    const above = one.policies.find(({ policies }) => policy && policies.includes(policy));
    const nearest = above?.policies[0];
    return decisions
      .filter((decision) => !policy || (nearest && (decision.policy ?? nearest) === nearest))
      .map((decision) =>
        entryOf(
          one.object,
          !nearest || nearest === policy
            ? decision
            : { ...decision, marks: undefined, untouched: `${nameOf(nearest)} is nearer` },
        ),
      );
  }

  /** What has to be known of all objects is checked when the first one is rendered: by then all of the app is valid. */
  private manifest(one: Surveyed): Json {
    if (!this.isChecked) {
      this.check();
      this.isChecked = true;
    }
    const json = this.rendered.get(one) ?? this.renderOne(one);
    this.rendered.delete(one);
    return this.decide(one, json);
  }

  private renderOne({ object }: Surveyed): Json {
    return plainToJson(object).call(object) as Json;
  }

  private render(one: Surveyed): Json | undefined {
    if (!this.rendered.has(one)) {
      this.rendered.set(one, this.tryToRender(one));
    }
    return this.rendered.get(one);
  }

  private tryToRender(one: Surveyed): Json | undefined {
    try {
      return this.renderOne(one);
    } catch {
      // It is thrown again when the object itself is rendered.
      return undefined;
    }
  }

  private check(): void {
    for (const [policy, scope] of this.survey.scopes) {
      this.requireWorkload(policy, scope);
      this.requireToldKinds(policy, scope);
      this.requireContainers(policy, scope);
    }
    const render = (one: Surveyed) => this.render(one);
    requireUnique(this.survey, render);
    requireNamespaces(this.survey, render);
  }

  /** The manifest of an object with what the nearest policies of all prefixes add. */
  private decide(one: Surveyed, rendered: Json): Json {
    const { object, isOfAgent } = one;
    const governing = isOfAgent ? [] : one.policies;
    const decisions: Decision[] | undefined = this.isReported ? [] : undefined;
    let json = rendered;
    let ofTable: Manifest[] | undefined;
    const manifests = (told: readonly ToldKind[]) =>
      told.length > 0 ? manifestsOf(rendered, told) : (ofTable ??= manifestsOf(rendered, told));
    for (const { policies, told } of governing) {
      for (const manifest of manifests(told)) {
        json = decideOne(object, json, manifest, policies, decisions);
      }
    }
    for (const prefix of this.prefixes) {
      const own = governing.find(({ policies: [nearest] }) => nearest.prefix === prefix);
      for (const manifest of manifests(own?.told ?? [])) {
        requireReadable(object, json, manifest, prefix, own?.policies[0].injected);
        if (decisions && governing.length === 0) {
          decisions.push(...ungoverned(one, json, manifest, prefix));
        }
      }
    }
    if (decisions) {
      this.decisions.set(one, decisions);
    }
    return json;
  }

  private requireWorkload(policy: PolicyChoices, scope: Scope): void {
    if (policy.all === 'none' || policy.allowEmpty || this.hasPods(scope, policy)) {
      return;
    }
    const { objects, hasAgent } = scope;
    const { target } = policy;
    const [only, ...others] = objects;
    if (only && others.length === 0 && isSameThing(target, only.object)) {
      const { apiVersion, kind } = only.object;
      const { untouched = NO_PODS } = this.manifests(only, policy)[0] ?? {};
      throw misuse(
        target,
        `${apiVersion} ${kind} has no pods for OomKillPolicy${untouched === NO_PODS ? '' : `: ${untouched}`}`,
        `OomKillPolicy.of() of a workload (${WORKLOAD_KINDS} or another kind that docs/kinds.md has), of a scope around it, or workloadKinds in its options`,
      );
    }
    const remedy = `OomKillPolicy.of() of a scope that holds one (${WORKLOAD_KINDS} or another kind that docs/kinds.md has), or allowEmpty: true in its options`;
    throw hasAgent
      ? misuse(
          target,
          'there is no workload for OomKillPolicy here but an OomKillModeAgent, whose pods are never opted in',
          remedy,
        )
      : misuse(
          target,
          `there is no workload for OomKillPolicy in this scope${this.leftAlone(objects, policy)}`,
          remedy,
        );
  }

  /** Somebody may have taken for a workload what only describes some. */
  private leftAlone(objects: readonly Surveyed[], policy: PolicyChoices): string {
    for (const one of objects) {
      for (const { untouched = NO_PODS, apiVersion, kind } of this.manifests(one, policy)) {
        if (untouched !== NO_PODS) {
          return `, and ${apiVersion} ${kind} is left alone: ${untouched}`;
        }
      }
    }
    return '';
  }

  private hasPods({ objects }: Scope, policy: PolicyChoices): boolean {
    const told = new Set(policy.kinds.map(({ kind }) => kind));
    const isKnown = ({ object: { apiVersion, kind } }: Surveyed) => {
      const known = told.has(kind) ? undefined : knownKind(apiGroup(apiVersion), kind);
      return known !== undefined && known.refersBy === undefined;
    };
    // What has to be rendered for it comes last.
    return (
      objects.some(isKnown) ||
      objects.some(
        (one) =>
          this.render(one) === undefined ||
          this.manifests(one, policy).some(({ pods, problem }) => pods.length > 0 || problem),
      )
    );
  }

  private manifests(one: Surveyed, { prefix }: PolicyChoices): Manifest[] {
    const governing = one.policies.find(({ policies: [nearest] }) => nearest.prefix === prefix);
    return manifestsOf(this.render(one) ?? {}, governing?.told ?? []);
  }

  private requireToldKinds(policy: PolicyChoices, { objects }: Scope): void {
    for (const { apiGroup: group, kind } of policy.allowEmpty ? [] : policy.kinds) {
      const isThere = objects.some(
        ({ object }) => object.kind === kind && apiGroup(object.apiVersion) === group,
      );
      const isListed = () =>
        objects
          .filter(({ object }) => object.kind.endsWith('List'))
          .flatMap((one) => this.manifests(one, policy))
          .some((one) => one.kind === kind && apiGroup(one.apiVersion) === group);
      if (!isThere && !isListed()) {
        const similar = objects
          .map(({ object }) => object)
          .find(
            (one) =>
              one.kind.toLowerCase() === kind.toLowerCase() || apiGroup(one.apiVersion) === group,
          );
        throw misuse(
          policy.target,
          `workloadKinds has ${group} ${kind}, and there is no such object in this scope`,
          `${similar ? `apiGroup: "${apiGroup(similar.apiVersion)}", kind: "${similar.kind}", ` : ''}the group and kind of an object that is there, or allowEmpty: true`,
        );
      }
    }
  }

  /** A name that no workload has is misspelt. No more objects are rendered for it than it takes to find all names. */
  private requireContainers(policy: PolicyChoices, { objects }: Scope): void {
    const missing = new Set(
      [...policy.containers.keys()].filter((name) => !policy.injected.has(name)),
    );
    if (missing.size === 0) {
      return;
    }
    const governed = objects.filter(({ policies }) =>
      policies.some(({ policies: [nearest] }) => nearest === policy),
    );
    const known = new Set<string>();
    for (const one of governed) {
      if (missing.size === 0 || this.render(one) === undefined) {
        return;
      }
      for (const name of this.containers(one, policy)) {
        known.add(name);
        missing.delete(name);
      }
    }
    const [name] = missing;
    if (name === undefined || (policy.allowEmpty && known.size === 0)) {
      return;
    }
    const shadowed = objects
      .filter((one) => !governed.includes(one))
      .find((one) => this.containers(one, policy).includes(name));
    const nearer = shadowed?.policies
      .map(({ policies: [nearest] }) => nearest)
      .find(({ prefix }) => prefix === policy.prefix);
    throw shadowed && nearer
      ? misuse(
          policy.target,
          `perContainer names ${name}, a container of ${shadowed.object.node.path}, to which ${nameOf(nearer)} is nearer, and that one counts alone`,
          `perContainer({ ${name}: … }) of ${nearer.target.node.path || 'the app'}`,
        )
      : misuse(
          policy.target,
          `perContainer names a container that no workload here has: ${name}`,
          `${[...known].sort().join(' or ') || 'the name of a container'}, or injectedContainers: ["${name}"] if something adds it later`,
        );
  }

  private containers(one: Surveyed, policy: PolicyChoices): string[] {
    return this.manifests(one, policy).flatMap(({ pods }) =>
      pods.flatMap(({ containers }) => containers()),
    );
  }
}

function requireChoice({ target, all, containers }: PolicyChoices): void {
  if (all === undefined && containers.size === 0) {
    throw misuse(
      target,
      'OomKillPolicy.of() chooses no mode',
      '.single(), .group(), .perContainer({ … }) or .none() after it',
    );
  }
}

/** What one policy, the nearest, makes of one manifest. */
function decideOne(
  object: ApiObject,
  rendered: Json,
  manifest: Manifest,
  [nearest, ...others]: Policies,
  decisions?: Decision[],
): Json {
  if (nearest.all !== 'none' && manifest.problem) {
    const { what, remedy } = manifest.problem;
    const where = manifest.path.length > 0 ? `${pointerOf(manifest.path)}: ` : '';
    throw misuse(object, `${where}${what}`, remedy);
  }
  if (manifest.pods.length === 0 && manifest.untouched !== NO_PODS) {
    decisions?.push({
      manifest,
      policy: nearest,
      untouched: manifest.untouched ?? reason(nearest),
    });
  }
  const rivals = others.filter(({ target }) => isSameThing(target, object));
  return manifest.pods.reduce((json, pods) => {
    const marks = marksFor(nearest, pods);
    for (const rival of rivals) {
      requireSame(object, [nearest, marks], [rival, marksFor(rival, pods)]);
    }
    if (!marks && !pods.isComplete && nearest.all !== 'none') {
      throw misuse(
        object,
        `the names of its containers are not known to the perContainer() of ${nearest.target.node.path || 'the app'}`,
        'single() or group() as well, injectedContainers, or an OomKillPolicy of its own',
      );
    }
    decisions?.push({ manifest, policy: nearest, pods, marks });
    return writeMarks(object, json, pods, nearest, marks);
  }, rendered);
}

function reason(policy: PolicyChoices): string {
  return policy.all === 'none'
    ? `${nameOf(policy)} says none()`
    : `perContainer() of ${policy.target.node.path || 'the app'} names none of its containers`;
}

/** What is to be reported of a manifest that no policy is above: a user may have labelled its pods. */
function ungoverned(one: Surveyed, json: Json, manifest: Manifest, prefix: string): Decision[] {
  return manifest.pods.map((pods) => {
    const mode = modeOf(readMode(json, pods, prefix));
    return mode
      ? { manifest, pods, marks: { mode, containers: readContainers(json, pods, prefix) } }
      : {
          manifest,
          pods,
          untouched: one.isOfAgent
            ? 'the pods of an OomKillModeAgent are never opted in'
            : 'there is no OomKillPolicy above it',
        };
  });
}

function entryOf(
  object: ApiObject,
  { manifest, policy, pods, marks, untouched }: Decision,
): OomKillReportEntry {
  const { apiVersion, kind, name } = manifest;
  const named = parseContainers(marks?.containers);
  const names = [...new Set([...(pods?.containers() ?? []), ...named.keys()])].sort();
  return given({
    path: object.node.path,
    apiVersion,
    kind,
    name,
    pods: pods && pointerOf(pods.path),
    policy: policy && (policy.target.node.path || 'app'),
    mode: marks?.mode,
    containers:
      marks && Object.fromEntries(names.map((one) => [one, named.get(one) ?? marks.mode])),
    untouched: marks ? undefined : (untouched ?? (policy && reason(policy))),
  });
}

/** Where a user sees one thing: a construct of cdk8s-plus and its object, a deployment of ours and what it is made of. */
function isSameThing(scope: IConstruct, object: ApiObject): boolean {
  const { apiObject } = scope as { apiObject?: unknown };
  const child = markOf(scope) === 'deployment' ? scope.node.defaultChild : undefined;
  return (
    scope === object || apiObject === object || (child !== undefined && isSameThing(child, object))
  );
}

type Said = readonly [PolicyChoices, PodMarks | undefined];

function requireSame(object: ApiObject, [policy, marks]: Said, [rival, its]: Said): void {
  if (marks?.mode !== its?.mode || marks?.containers !== its?.containers) {
    throw misuse(
      object,
      `${nameOf(policy)} says ${describe(marks)} about its pods, and ${nameOf(rival)} says ${describe(its)}`,
      'one of the two',
    );
  }
}

function describe(marks: PodMarks | undefined): string {
  return marks ? [marks.mode, marks.containers].filter(Boolean).join(' ') : 'nothing';
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** A report as a table, for people. */
function tableOf(entries: readonly OomKillReportEntry[]): string {
  const rows = [
    ['PATH', 'KIND', 'NAME', 'PODS', 'MODE'],
    ...entries.map(({ path, kind, name = '', pods = '', mode, containers = {}, untouched }) => {
      const others = Object.entries(containers).filter(([, its]) => its !== mode);
      const says = [mode, ...others.map((one) => one.join('='))].join(' ');
      return [path, kind, name, pods, untouched === undefined ? says : `- ${untouched}`];
    }),
  ];
  const widths = [0, 1, 2, 3].map((i) => Math.max(...rows.map((row) => (row[i] ?? '').length)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
