import { OomKillMode } from './oom-kill-mode';

/**
 * An entry of a report: a place in a manifest that labels pods, or an object that the policies left alone.
 */
export interface OomKillReportEntry {
  /**
   * The construct path of the API object.
   */
  readonly path: string;

  /**
   * The API version of the manifest, such as "apps/v1".
   */
  readonly apiVersion: string;

  /**
   * The kind of the manifest.
   */
  readonly kind: string;

  /**
   * The name in the manifest.
   *
   * @default none
   */
  readonly name?: string;

  /**
   * A JSON pointer to the object with the labels and annotations of the pods.
   *
   * @default none, if there are no pods to reach
   */
  readonly pods?: string;

  /**
   * The construct path of the policy that decided.
   *
   * @default none
   */
  readonly policy?: string;

  /**
   * The mode of the pods, which is their label.
   *
   * @default none, if the policies leave them alone
   */
  readonly mode?: OomKillMode;

  /**
   * The mode of each container whose name is known.
   *
   * @default none, if the policies leave the pods alone
   */
  readonly containers?: { [containerName: string]: OomKillMode };

  /**
   * Why the object, or these pods of it, were left alone.
   *
   * @default none, if they were opted in
   */
  readonly untouched?: string;
}
