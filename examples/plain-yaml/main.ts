import { join } from 'node:path';
import { App, Chart, Include } from 'cdk8s';
import { OomKillPolicy } from '../../lib';

const app = new App();
const chart = new Chart(app, 'plain-yaml');
const shop = new Include(chart, 'shop', { url: join(__dirname, 'shop.yaml') });
OomKillPolicy.of(shop).single();
app.synth();
