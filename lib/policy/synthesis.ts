import { ApiObject } from 'cdk8s';
import { IConstruct } from 'constructs';
import { OomKillReportEntry } from './oom-kill-report';
import {
  prefixesOf,
  requireNamespaces,
  requireNoChartLabels,
  requireOwnNodes,
  requirePrefixes,
  requireUnique,
} from './app-checks';
import { Json, pointerOf } from './json';
import { Role, isSameThing, setRole } from './own-constructs';
import { usageError } from '../private/usage-error';
import { requireReadable, writeMarks } from './pod-marks';
import { Manifest, NO_PODS, UserKind, manifestsOf } from './pods';
import {
  Look,
  requireChoice,
  requireContainers,
  requireUserKinds,
  requireWorkload,
} from './policy-checks';
import { Policies, PodMarks, PolicyChoices, marksFor, nameOf, reasonOf } from './policy-choices';
import { hasOwn } from '../private/props';
import { Decision, byPath, entriesOf, tableOf, ungoverned } from './report';
import { Survey, Surveyed } from './survey';

const ATTACHED = Symbol.for('cdk8s-oom-kill-mode.synthesis');

/** Marks a construct as one of this library, and makes every synthesis check its app. */
export function joinApp(construct: IConstruct, role: Role): void {
  setRole(construct, role);
  attachTo(construct.node.root);
}

/** Makes every synthesis of an app start with a survey of the app. */
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
 * The syntheses of an app, one after the other. `synth()` and `synthYaml()` render an app chart by chart, and
 * validate the whole app before each chart; all of this is one synthesis. A chart that a test renders alone
 * is another one.
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
 * The report of the objects below a construct, for all policies or for one. It renders the objects.
 */
export function reportOf(construct: IConstruct, policy?: PolicyChoices): OomKillReportEntry[] {
  const { path } = construct.node;
  return new Synthesis(construct.node.root, true)
    .report(policy)
    .filter((entry) => path === '' || `${entry.path}/`.startsWith(`${path}/`));
}

const OWN = Symbol.for('cdk8s-oom-kill-mode.own-rendering');

/** Asks the synthesis for the manifest of an object. The map has the objects that had their own `toJson`. */
type ToJson = ApiObject['toJson'] & { [OWN]?: Map<ApiObject, ApiObject['toJson']> };

/** Renders an object as cdk8s or the user does, without policies. */
function plainToJson(object: ApiObject): ApiObject['toJson'] {
  /* eslint-disable @typescript-eslint/unbound-method -- it is called with the object */
  const toJson: ToJson = object.toJson;
  return toJson[OWN] === undefined
    ? toJson
    : (toJson[OWN].get(object) ?? (Object.getPrototypeOf(object) as ApiObject).toJson);
  /* eslint-enable */
}

/**
 * One synthesis: it surveys the tree once, renders each object once, decides, and is thrown away. Only the
 * rendered manifest has everything that a user adds to a workload, such as JSON patches, `Lazy` values and
 * resolvers. So the synthesis replaces the `toJson` of each object, and adds the policies to the result of
 * the original one.
 */
class Synthesis implements Look {
  private readonly survey: Survey;
  private readonly prefixes: Set<string>;
  private readonly rendered = new Map<Surveyed, Json | undefined>();
  private readonly decisions = new Map<Surveyed, Decision[]>();
  private readonly checked = new Set<PolicyChoices>();
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
        requireWorkload(policy, scope, this);
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
      .flatMap((one) => entriesOf(one, this.decisions.get(one) ?? [], policy))
      .sort(byPath);
  }

  private manifest(one: Surveyed): Json {
    this.check(one);
    const json = this.rendered.get(one) ?? this.renderOne(one);
    this.rendered.delete(one);
    return this.decide(one, json);
  }

  private renderOne({ object }: Surveyed): Json {
    return plainToJson(object).call(object) as Json;
  }

  /** Renders an object before its turn. Returns undefined if that fails. */
  public render(one: Surveyed): Json | undefined {
    if (!this.rendered.has(one)) {
      this.rendered.set(one, this.tryToRender(one));
    }
    return this.rendered.get(one);
  }

  private tryToRender(one: Surveyed): Json | undefined {
    try {
      return this.renderOne(one);
    } catch {
      // cdk8s meets the same error when it renders the object.
      return undefined;
    }
  }

  /**
   * Runs the checks that need several objects, before the first object is rendered. Checks only
   * the policies above the object, because a test may render one chart of an app.
   */
  private check({ policies: governing }: Surveyed): void {
    if (!this.isChecked) {
      const render = (one: Surveyed) => this.render(one);
      requireUnique(this.survey, render);
      requireNamespaces(this.survey, render);
      this.isChecked = true;
    }
    for (const { policies } of governing) {
      for (const policy of policies) {
        const scope = this.survey.scopes.get(policy);
        if (scope && !this.checked.has(policy)) {
          requireWorkload(policy, scope, this);
          requireUserKinds(policy, scope, this);
          requireContainers(policy, scope, this);
          this.checked.add(policy);
        }
      }
    }
  }

  /** The manifest of an object with the label and annotation of the nearest policy of each prefix. */
  private decide(one: Surveyed, rendered: Json): Json {
    const { object, isOfAgent } = one;
    const governing = isOfAgent ? [] : one.policies;
    const decisions: Decision[] | undefined = this.isReported ? [] : undefined;
    let json = rendered;
    let ofTable: Manifest[] | undefined;
    const manifests = (userKinds: readonly UserKind[]) =>
      userKinds.length > 0
        ? manifestsOf(rendered, userKinds)
        : (ofTable ??= manifestsOf(rendered, userKinds));
    for (const { policies, userKinds } of governing) {
      for (const manifest of manifests(userKinds)) {
        json = decideOne(object, json, manifest, policies, decisions);
      }
    }
    for (const prefix of this.prefixes) {
      const own = governing.find(({ policies: [nearest] }) => nearest.prefix === prefix);
      for (const manifest of manifests(own?.userKinds ?? [])) {
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
}

/** Applies the nearest policy to one manifest. */
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
    throw usageError(object, `${where}${what}`, remedy);
  }
  if (manifest.pods.length === 0 && manifest.untouched !== NO_PODS) {
    decisions?.push({
      manifest,
      policy: nearest,
      untouched: manifest.untouched ?? reasonOf(nearest),
    });
  }
  const rivals = others.filter(({ target }) => isSameThing(target, object));
  return manifest.pods.reduce((json, pods) => {
    const marks = marksFor(nearest, pods);
    for (const rival of rivals) {
      requireSame(object, [nearest, marks], [rival, marksFor(rival, pods)]);
    }
    if (!marks && !pods.isComplete && nearest.all !== 'none') {
      throw usageError(
        object,
        `perContainer() of ${nearest.target.node.path || 'the app'} cannot know the names of its containers`,
        'single() or group() beside perContainer(), injectedContainers, or another OomKillPolicy for this object',
      );
    }
    decisions?.push({ manifest, policy: nearest, pods, marks });
    return writeMarks(object, json, pods, nearest, marks);
  }, rendered);
}

type Said = readonly [PolicyChoices, PodMarks | undefined];

function requireSame(object: ApiObject, [policy, marks]: Said, [rival, its]: Said): void {
  if (marks?.mode !== its?.mode || marks?.containers !== its?.containers) {
    throw usageError(
      object,
      `${nameOf(policy)} says ${describe(marks)} about its pods, but ${nameOf(rival)} says ${describe(its)}`,
      'only one of the two',
    );
  }
}

function describe(marks: PodMarks | undefined): string {
  return marks ? [marks.mode, marks.containers].filter(Boolean).join(' ') : 'nothing';
}
