// The live worklist beside a server that empties it, refuses, stalls, and has more rows than are asked for at once: what no
// daemon of a test comes to. Its answers to the list are made here, all others are its own.

// A row of the list, as worklist_rows.html has it.
const row = (uid, urgency = 3) => `<tr data-href="/studies/${uid}" data-uid="${uid}" class="u${urgency}"><td>${uid}</td></tr>`;
const table = (rows, next) => `<table class="list"><tbody>${rows.join('')}</tbody></table>${
  next ? `<p class="more"><button type="button" data-next="${next}">More</button></p>` : ''}`;
const numbered = (from, to) => Array.from({ length: to - from }, (_, index) => `2.25.${from + index}`);

// What was seen, in the order of the steps; `browser` is logged in at `base`.
export async function live(browser, base) {
  const page = await browser.newPage();
  const seen = { asked: [] };
  // What the list answers: a text; null is the daemon's own answer, undefined none ever.
  let answer = () => null;
  try {
    // A second of the test is a minute of the page's patience; what it does again it does soon.
    await page.evaluateOnNewDocument(() => {
      const timeout = AbortSignal.timeout.bind(AbortSignal);
      AbortSignal.timeout = (ms) => timeout(ms / 60);
    });
    await page.setRequestInterception(true);
    page.on('request', (request) => {
      const url = new URL(request.url());
      if (url.pathname === '/api/events') {
        // One event and an end, again and again.
        const body = 'retry: 600\ndata: {"study_instance":"2.25.1","kind":"alert"}\n\n';
        return request.respond({ status: 200, contentType: 'text/event-stream', body });
      }
      if (url.pathname !== '/worklist/rows') return request.continue();
      seen.asked.push(url.searchParams.get('limit'));
      const body = answer(url.searchParams);
      if (body === null) return request.continue();
      return body === undefined ? undefined : request.respond({ status: 200, contentType: 'text/html', body });
    });
    const listed = () => page.$$eval('#list tr[data-uid]', (found) => found.map((one) => one.dataset.uid));
    const until = (works, ...values) => page.waitForFunction(works, { timeout: 20_000, polling: 50 }, ...values);
    const count = (wanted) => until((n) => document.querySelectorAll('#list tr[data-uid]').length === n, wanted);
    const toasted = (words) => until((part) => document.querySelector('#toast').textContent.includes(part), words);

    // A list that was read on, and has become empty, is filled again. The daemon itself answers what it does not take.
    const first = [row('2.25.1'), row('2.25.2')];
    answer = (query) => (query.get('page') ? table(first.slice(1), 'second') : table(first.slice(0, query.get('limit')), 'first'));
    await page.goto(`${base}/?limit=1`);
    await until(() => document.querySelector('#list tr[data-uid="2.25.1"]'));
    await page.click('button[data-next]');
    await count(2);
    answer = () => '<p class="empty">No study matches.</p>';
    await count(0);
    const begun = seen.asked.length;
    answer = (query) => (query.get('limit') === '0' ? null : table([row('2.25.3', 4)]));
    await toasted('1 new positive');
    seen.filled = await listed();
    seen.zero = seen.asked.slice(begun).includes('0');

    // A refusal takes no row away, and is said.
    answer = () => '<p class="error" role="alert">the page token is damaged</p>';
    await toasted('not up to date: the page token is damaged');
    seen.refused = await listed();

    // An answer that never comes stops no other.
    answer = () => undefined;
    await toasted('not up to date: ');
    await until(() => /tim(ed|e) ?out/i.test(document.querySelector('#toast').textContent));
    answer = () => table([row('2.25.4', 4)]);
    await until(() => document.querySelector('#list tr[data-uid="2.25.4"]'));
    seen.stalled = await listed();

    // Of a list that is longer than what is asked for at once no row is lost: one from far below has become the first.
    let order = numbered(1_000, 2_500);
    answer = (query) => {
      const rows = order.map((uid) => row(uid, uid === order[0] ? 4 : 3));
      return query.get('page') ? table(rows.slice(1)) : table(rows.slice(0, query.get('limit')), 'further');
    };
    await page.waitForSelector('button[data-next=further]');
    await page.click('button[data-next]');
    await count(1_500);
    order = ['2.25.2400', ...order.filter((uid) => uid !== '2.25.2400')];
    await until(() => document.querySelector('#list tr[data-uid]').dataset.uid === '2.25.2400');
    seen.long = JSON.stringify(await listed()) === JSON.stringify(order);
    // Nor when another arrives while one of the first goes.
    order = ['2.25.9', ...order.filter((uid) => uid !== '2.25.1003')];
    await until(() => document.querySelector('#list tr[data-uid]').dataset.uid === '2.25.9');
    seen.longer = JSON.stringify(await listed()) === JSON.stringify(order);
  } finally {
    await page.close();
  }
  return seen;
}
