import { OomKillModeAgent } from '../../lib';
import { chart, find, synth } from '../support/manifests';

test('the DaemonSet has the labels that the agent is given', () => {
  const scope = chart();
  new OomKillModeAgent(scope, 'agent', { labels: { team: 'platform' } });
  expect(find(synth(scope), 'DaemonSet').metadata.labels).toMatchObject({ team: 'platform' });
});
