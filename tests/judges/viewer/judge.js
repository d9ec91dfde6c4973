// Shows a study of a PACS in a headless Chromium and keeps what a user would see.
//
//     node judge.js BUNDLE CHROMIUM PACS STUDY OUT
//
// BUNDLE is the folder of the built page, PACS the base URL of the server whose DICOMweb service is below /dicom-web.
// Writes a picture of each slice to OUT/000.png and so on, and prints where each lies as JSON.

import { createReadStream } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import puppeteer from 'puppeteer-core';

const [bundle, chromium, pacs, study, out] = process.argv.slice(2);
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.wasm': 'application/wasm' };

// The page and the PACS behind one address, for the PACS allows no other origin.
const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://page');
  if (url.pathname.startsWith('/dicom-web/')) {
    const headers = { accept: request.headers.accept ?? '*/*' };
    const onwards = http.request(new URL(request.url, pacs), { headers }, (answer) => {
      response.writeHead(answer.statusCode, { 'content-type': answer.headers['content-type'] ?? '' });
      answer.pipe(response);
    });
    onwards.on('error', (error) => response.writeHead(502).end(String(error)));
    onwards.end();
    return;
  }
  const file = path.join(bundle, path.basename(url.pathname === '/' ? '/page.html' : url.pathname));
  const body = createReadStream(file);
  body.on('open', () => response.writeHead(200, { 'content-type': TYPES[path.extname(file)] ?? 'text/plain' }));
  body.on('error', () => response.writeHead(404).end());
  body.pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

// No GPU is needed: SwiftShader does WebGL on the processor. As root Chromium has no sandbox; all it opens is our page.
const args = ['--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--disable-dev-shm-usage'];
if (process.getuid?.() === 0) args.push('--no-sandbox');
const browser = await puppeteer.launch({ executablePath: chromium, args, protocolTimeout: 120_000 });
let failed = false;
try {
  const page = await browser.newPage();
  page.on('console', (message) => console.error(`page: ${message.text()}`));
  page.on('pageerror', (error) => console.error(`page: ${error}`));
  await page.setViewport({ width: 768, height: 768, deviceScaleFactor: 1 });
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction('window.judge', { timeout: 60_000 });
  const loaded = await page.evaluate((uid) => window.judge.load(uid), study);
  const element = await page.$('#viewport');
  const slices = [];
  for (const [index, image] of loaded.images.entries()) {
    const shown = await page.evaluate((i) => window.judge.show(i), index);
    const picture = `${String(index).padStart(3, '0')}.png`;
    await element.screenshot({ path: path.join(out, picture) });
    slices.push({ ...image, ...shown, picture });
  }
  console.log(JSON.stringify({ segments: loaded.segments, slices }));
} catch (error) {
  console.error(error);
  failed = true;
} finally {
  await browser.close();
  server.close();
}
process.exit(failed ? 1 : 0);
