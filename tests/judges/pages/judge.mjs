// Looks at the pages of an ichor daemon in a headless Chromium, as people do: with keys and with a pointer.
//
//     node judge.mjs VIEWER CHROMIUM LINK STUDY OUT
//
// VIEWER is the folder of scripts/setup_viewer.sh (for puppeteer), LINK the first admin's one-time link, STUDY the UID of a
// positive study. Writes pictures to OUT, and prints what was seen as JSON; everything on the console is part of it. When
// OUT/listening is there, another study is to be sent: the open list must show it by itself. When OUT/reading-on is there, a
// positive one is: a list of which more than the first page is shown must, too.

import { createRequire } from 'node:module';
import { writeFileSync } from 'node:fs';
import path from 'node:path';

import { live } from './live.mjs';

const [viewer, chromium, link, study, out] = process.argv.slice(2);
const loaded = createRequire(path.join(viewer, 'judge.js'))('puppeteer-core');
const puppeteer = loaded.default ?? loaded;
const base = new URL(link).origin;

const args = ['--disable-dev-shm-usage'];
if (process.getuid?.() === 0) args.push('--no-sandbox');
const browser = await puppeteer.launch({ executablePath: chromium, args, protocolTimeout: 120_000 });
const seen = { console: [], foreign: [], dialogs: [], keys: {}, pages: {} };
try {
  const page = await browser.newPage();
  page.on('console', (message) => seen.console.push(`${page.url()}: ${message.text()}`));
  page.on('pageerror', (error) => seen.console.push(`${page.url()}: ${error}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith('data:')) seen.foreign.push(request.url());
  });
  page.on('dialog', (dialog) => { seen.dialogs.push(dialog.message()); dialog.accept(); });
  const wide = { width: 1280, height: 900, deviceScaleFactor: 1 };
  const phone = { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
  await page.setViewport(wide);
  const shot = (name) => page.screenshot({ path: path.join(out, `${name}.png`) });
  // Nothing runs off the side of the screen.
  const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  const text = (selector) => page.$eval(selector, (element) => element.textContent.trim());

  await page.goto(link);
  await shot('welcome');
  await page.type('input[name=name]', 'anna');
  await page.type('input[name=password]', 'seven grey pianos');
  await page.type('input[name=again]', 'seven grey pianos');
  await Promise.all([page.waitForNavigation(), page.click('button.primary')]);

  await page.waitForSelector('#live.on', { timeout: 20_000 });
  seen.notice = await text('.notice');
  seen.rows = await page.$$eval('#list tr[data-href]', (rows) => rows.map((row) => ({
    uid: row.dataset.uid,
    urgency: row.className,
    name: row.querySelector('td a').textContent.trim(),
    tag: row.querySelector('.tag')?.textContent.trim() ?? '',
  })));
  seen.scripts = await page.$$eval('#list script', (found) => found.length);
  await shot('worklist');
  seen.pages.worklist = await overflow();

  writeFileSync(path.join(out, 'listening'), '');
  const rows = seen.rows.length;
  await page.waitForFunction((known) => document.querySelectorAll('#list tr[data-href]').length > known,
    { timeout: 60_000 }, rows);
  seen.live = await page.$$eval('#list tr[data-href]', (found) => found.length) - rows;

  await page.keyboard.press('/');
  seen.keys.search = await page.evaluate(() => document.activeElement.id);
  await page.keyboard.press('Escape');
  await page.keyboard.press('j');
  const first = await page.$eval('tr[aria-selected]', (row) => row.dataset.uid);
  await page.keyboard.press('j');
  await page.keyboard.press('k');
  seen.keys.again = first === await page.$eval('tr[aria-selected]', (row) => row.dataset.uid);
  await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
  seen.keys.opened = page.url().endsWith(first);

  await page.goto(`${base}/studies/${study}`);
  const painted = () => page.waitForFunction(() => {
    const image = document.querySelector('#slice');
    return image.complete && image.naturalWidth > 0;
  }, { timeout: 30_000 });
  // Pixels of the picture that are the colour of the outline.
  const outlined = () => page.evaluate(() => {
    const image = document.querySelector('#slice');
    const canvas = Object.assign(document.createElement('canvas'), { width: image.naturalWidth, height: image.naturalHeight });
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
      if (data[at] === 255 && data[at + 1] === 196 && data[at + 2] === 0) count += 1;
    }
    return count;
  });
  await painted();
  await page.waitForSelector('#live.on');
  await shot('study');
  seen.pages.study = await overflow();
  seen.study = { title: await page.title(), name: await text('.patient h1'), verdict: await text('.verdict .tag') };
  const cells = (selector) => page.$$eval(selector, (found) => found.map((row) => (
    [...row.children].map((cell) => cell.textContent.trim()))));
  seen.lesions = await cells('table.tight tbody tr');
  seen.rules = await cells('table.rules tbody tr');
  seen.timeline = await cells('.timeline li');
  seen.bars = await page.$$eval('#strip rect.slice', (bars) => bars.map((bar) => Number(bar.dataset.p)));
  seen.index = Number(await page.$eval('#slice', (image) => image.dataset.index));
  seen.outline = await outlined();
  const source = () => page.$eval('#slice', (image) => image.getAttribute('src'));
  const chosen = () => page.$eval('[data-overlay][aria-checked=true]', (button) => button.dataset.overlay);
  const legend = () => page.$eval('#legend', (box) => box.checkVisibility());
  seen.map = { before: [await chosen(), await legend()] };
  await page.keyboard.press('o');
  await painted();
  seen.map.on = [await chosen(), await legend()];
  seen.map.outline = await outlined();
  seen.map.words = await text('#legend p');
  seen.map.slice = (await source()).split('/')[5];
  await shot('study-map');
  // The same pictures as files, to be compared by the pixel.
  for (const [name, query] of [['over', 'picture?overlay=map'], ['plain', 'picture?overlay=false'], ['map', 'map']]) {
    const bytes = await page.evaluate(async (url) => {
      const answer = await fetch(url);
      if (!answer.ok) throw new Error(await answer.text());
      return [...new Uint8Array(await answer.arrayBuffer())];
    }, `/api/studies/${study}/slices/${seen.map.slice}/${query}`);
    writeFileSync(path.join(out, `slice-${name}.png`), Buffer.from(bytes));
  }
  await page.keyboard.press('Home');
  await painted();
  seen.map.mapless = await page.$eval('#mapless', (words) => words.checkVisibility());
  seen.map.plain = (await source()).includes('overlay=false');
  await page.keyboard.press('p');
  await page.keyboard.press('o');
  await painted();
  seen.map.off = [await chosen(), await legend()];
  seen.bare = await outlined();
  await page.click('[data-overlay=mask]');
  await painted();
  seen.map.clicked = [await chosen(), await outlined()];
  await page.keyboard.press('5');
  await painted();
  seen.keys.bone = (await source()).includes('window=bone');
  await shot('study-bone');
  await page.keyboard.press('1');
  const index = async () => Number(await page.$eval('#slice', (image) => image.dataset.index));
  await page.keyboard.press('Home');
  const home = await index();
  await page.keyboard.press('ArrowDown');
  const down = await index();
  await page.keyboard.press('End');
  const end = await index();
  await page.keyboard.press('p');
  seen.keys.slices = [home, down, end, await index()];
  const box = await (await page.$('#strip')).boundingBox();
  await page.mouse.click(box.x + 10, box.y + box.height - 2);
  seen.keys.clicked = await index();
  seen.readout = await text('#readout');
  await page.keyboard.press('?');
  seen.keys.help = await page.$eval('#keys', (dialog) => dialog.open);
  await shot('keys');
  await page.keyboard.press('Escape');

  await page.click('[data-post$="/retry"]');
  await page.waitForSelector('#toast.shown');
  seen.retried = await text('#toast');
  await page.waitForNavigation();

  for (const [name, place] of [['queues', '/queues'], ['tasks', '/tasks'], ['statistics', '/statistics'], ['models', '/models'],
    ['health', '/health'], ['users', '/users'], ['account', '/account'], ['audit', '/audit']]) {
    await page.goto(`${base}${place}`);
    seen.pages[name] = await overflow();
    await shot(name);
    if (!await page.$('.notice')) seen.console.push(`${name}: the notice is missing`);
  }
  await page.goto(base);
  await page.keyboard.press('g');
  await Promise.all([page.waitForNavigation(), page.keyboard.press('t')]);
  seen.keys.tasks = new URL(page.url()).pathname;
  const lines = (selector) => page.$$eval(selector, (rows) => rows.map((row) => (
    [...row.cells].map((cell) => cell.textContent.trim()).join(' ').replace(/\s+/g, ' '))));
  seen.tasks = { lists: await lines('#lists tbody tr'), items: await lines('#tasks tbody tr') };
  await page.select('select[name=status]', 'completed');
  await Promise.all([page.waitForNavigation(), page.click('form.filter button')]);
  seen.tasks.completed = await lines('#tasks tbody tr');
  await Promise.all([page.waitForNavigation(), page.click('#tasks a')]);
  seen.tasks.study = new URL(page.url()).pathname;
  await page.goto(`${base}/users`);
  await page.type('form[data-json] input[name=name]', 'vera');
  await page.click('form[data-json] button');
  await page.waitForFunction(() => !document.querySelector('#shown').hidden);
  seen.invitation = await text('#shown');

  const unread = seen.rows.find((row) => row.tag === 'not analysed').uid;
  await page.goto(`${base}/studies/${unread}`);
  seen.unread = { blank: await text('.blank'), why: await text('.card.verdict .why'), rules: await cells('table.rules tbody tr') };
  await shot('not-analysed');

  // Whoever has read on is still told what is new, and keeps what they read.
  await page.goto(`${base}/?limit=1`);
  await page.waitForSelector('#live.on');
  const listed = () => page.$$eval('#list tr[data-href]', (found) => found.map((row) => row.dataset.uid));
  await page.waitForFunction(() => !document.querySelector('#toast.shown'));
  await page.click('button[data-next]');
  await page.waitForFunction(() => document.querySelectorAll('#list tr[data-href]').length === 2);
  const before = await listed();
  writeFileSync(path.join(out, 'reading-on'), '');
  await page.waitForFunction(() => /new positive/.test(document.querySelector('#toast.shown')?.textContent ?? ''),
    { timeout: 90_000, polling: 100 });
  seen.further = { before, toast: await text('#toast'), after: await listed(), more: await page.$$eval('button[data-next]', (found) => found.length) };

  seen.unsteady = await live(browser, base);
  await page.bringToFront();

  await page.setViewport(phone);
  for (const [name, place] of [['worklist', '/'], ['study', `/studies/${study}`], ['queues', '/queues'],
    ['tasks', '/tasks'], ['audit', '/audit']]) {
    await page.goto(`${base}${place}`);
    if (name === 'study') {
      await painted();
      await page.click('[data-overlay=map]');
      await painted();
    }
    seen.pages[`${name}-phone`] = await overflow();
    await shot(`${name}-phone`);
  }

  await page.setViewport(wide);
  await page.goto(`${base}/`);
  await Promise.all([page.waitForNavigation(), page.click('[data-action=logout]')]);
  seen.out = new URL(page.url()).pathname;
  await shot('login');
  console.log(JSON.stringify(seen));
} catch (error) {
  console.error(error, JSON.stringify(seen));
  process.exitCode = 1;
} finally {
  await browser.close();
}
