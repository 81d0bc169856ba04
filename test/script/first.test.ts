import { Scene } from './scene';

const scene = Scene.use();

test('a container of a pod with the label gets its mode', async () => {
  await scene.ready();
  await scene.become('0', scene.optIn('Single').run('worker'));
});
