// The pages' script: keys, the live worklist, the slice viewer, and buttons that post.
'use strict';

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const csrf = $('meta[name=csrf]')?.content ?? '';

// Times in the reader's own zone.
function localise(root) {
  const now = new Date();
  for (const time of $$('time[datetime]', root)) {
    if (time.closest('.timeline') && time.title) continue;
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const isToday = at.toDateString() === now.toDateString() && !('full' in time.dataset);
    const day = `${at.getFullYear()}-${String(at.getMonth() + 1).padStart(2, '0')}-${String(at.getDate()).padStart(2, '0')}`;
    const clock = at.toTimeString().slice(0, isToday || 'full' in time.dataset ? 8 : 5);
    time.textContent = isToday ? clock : `${day} ${clock}`;
    time.title = at.toLocaleString(undefined, { timeZoneName: 'short' });
  }
}

function toast(text, isBad) {
  const box = $('#toast');
  box.textContent = text;
  box.className = isBad ? 'shown bad' : 'shown';
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { box.className = ''; }, 6000);
}

async function send(method, url, body) {
  const headers = { 'x-csrf-token': csrf };
  if (body !== undefined) headers['content-type'] = 'application/json';
  const answer = await fetch(url, { method, headers, body, redirect: 'error' });
  const text = await answer.text();
  const json = text ? JSON.parse(text) : {};
  if (answer.status === 401) location.href = '/login';
  if (!answer.ok) throw new Error(json.detail ?? answer.statusText);
  return json;
}

// Buttons that have something done.
document.addEventListener('click', async (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  const { post, patch, delete: remove, confirm: question, ask, show, action } = button.dataset;
  let { body } = button.dataset;
  if (action === 'help') return $('#keys').showModal();
  if (action === 'logout') {
    const said = await send('POST', '/logout');
    location.href = said.location ?? '/login';
    return;
  }
  const url = post ?? patch ?? remove;
  if (!url || (question && !confirm(question))) return;
  if (ask) {
    const why = prompt(ask);
    if (!why) return;
    body = JSON.stringify({ ...JSON.parse(body ?? '{}'), why });
  }
  button.disabled = true;
  try {
    const said = await send(post ? 'POST' : patch ? 'PATCH' : 'DELETE', url, body);
    if (show) return reveal(said[show]);
    toast(said.done ?? 'Done.');
    setTimeout(() => location.reload(), 900);
  } catch (error) {
    toast(error.message, true);
  } finally {
    button.disabled = false;
  }
});

// A secret that is shown this once.
function reveal(text) {
  const box = $('#shown');
  box.hidden = false;
  box.textContent = text;
  getSelection().selectAllChildren(box);
  toast('Shown this once: copy it now.');
}

for (const form of $$('form[data-json]')) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const fields = {};
    for (const input of form.elements) {
      if (!input.name || input.value === '') continue;
      fields[input.name] = input.type === 'number' ? Number(input.value) : input.value;
    }
    try {
      const said = await send('POST', form.dataset.json, JSON.stringify(fields));
      reveal(said[form.dataset.show]);
    } catch (error) {
      toast(error.message, true);
    }
  });
}

// The worklist: chosen row, next page, live.
const list = $('#list');
let chosen = null;

function choose(row, isFollowed = true) {
  for (const other of $$('tr[aria-selected]', list)) other.removeAttribute('aria-selected');
  if (!row) return;
  chosen = row.dataset.uid;
  row.setAttribute('aria-selected', 'true');
  if (isFollowed) row.scrollIntoView({ block: 'nearest' });
}

function move(step) {
  const rows = $$('tr[data-href]', list);
  const at = rows.findIndex((row) => row.dataset.uid === chosen);
  choose(rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)]);
}

// How long one answer may take, in milliseconds: the others queue behind it. And when a list that did not come is asked for
// again: what has happened meanwhile may be the last for a while.
const PATIENCE = 20_000;
const AGAIN = 10_000;

async function rows(change) {
  const query = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(change)) query.set(key, value);
  const answer = await fetch(`${list.dataset.live}?${query}`, { signal: AbortSignal.timeout(PATIENCE) });
  if (answer.redirected) location.href = '/login';
  if (!answer.ok) throw new Error((await answer.json()).detail);
  const made = document.createElement('div');
  made.innerHTML = await answer.text();
  const problem = $('.error', made);
  if (problem) throw new Error(problem.textContent);
  return made;
}

// What is read stays where it is, unless the reader is at the top.
function inPlace(change) {
  const all = () => $$('tr[data-href]', list);
  const anchor = scrollY > 0 ? all().find((row) => row.getBoundingClientRect().bottom > 0) : null;
  const top = anchor?.getBoundingClientRect().top;
  change();
  const same = anchor && all().find((row) => row.dataset.uid === anchor.dataset.uid);
  if (same) scrollBy(0, same.getBoundingClientRect().top - top);
}

// One change of the list after the other: none begins with what another is about to replace.
let turn = Promise.resolve();
function inTurn(work) {
  turn = turn.then(work);
}

// The longest list that is asked for at once.
const LONGEST = 1000;
let further = 0;

async function refresh() {
  clearTimeout(refresh.timer);
  const before = $$('tr[data-uid]', list);
  const urgent = new Set(before.filter((row) => row.matches('.u4')).map((row) => row.dataset.uid));
  // Of a list that has become empty nothing was read on.
  if (before.length === 0) further = 0;
  // Whoever has read on is shown as much as before.
  const asked = Math.min(before.length, LONGEST);
  try {
    const made = await rows(further > 0 ? { limit: asked } : {});
    const come = $$('tr[data-uid]', made).map((row) => row.dataset.uid);
    if (further > 0 && before.length > asked && come.length > 0) {
      // What is beyond stays, and what was pushed there: all that stood behind the last one that is still among the first.
      const first = before.slice(0, asked).map((row) => row.dataset.uid);
      const beyond = before.slice(first.indexOf(come.findLast((uid) => first.includes(uid))) + 1);
      const here = new Set(come);
      $('tbody', made).append(...beyond.filter((row) => !here.has(row.dataset.uid)));
      $('.more', made)?.replaceWith($('.more', list) ?? '');
    }
    inPlace(() => list.replaceChildren(...made.childNodes));
    localise(list);
    choose($$('tr[data-href]', list).find((row) => row.dataset.uid === chosen), false);
    const fresh = $$('tr[data-uid].u4', list).filter((row) => !urgent.has(row.dataset.uid));
    for (const row of fresh) row.classList.add('fresh');
    if (fresh.length > 0) toast(`${fresh.length} new positive or alerted`, true);
  } catch (error) {
    toast(`The list is not up to date: ${error.message}`, true);
    refresh.timer = setTimeout(() => inTurn(refresh), AGAIN);
  }
}

async function readOn() {
  const more = $('button[data-next]', list);
  if (!more) return;
  more.disabled = true;
  try {
    const made = await rows({ page: more.dataset.next });
    further += 1;
    localise(made);
    // A study that has moved meanwhile may come once more.
    const here = new Set($$('tr[data-uid]', list).map((row) => row.dataset.uid));
    $('tbody', list).append(...$$('tbody tr', made).filter((row) => !here.has(row.dataset.uid)));
    $('.more', list).replaceWith($('.more', made) ?? '');
  } catch (error) {
    more.disabled = false;
    toast(error.message, true);
  }
}

function follow() {
  const dot = $('#live');
  dot.hidden = false;
  const says = (state, words) => { dot.className = `live ${state}`; dot.textContent = words; };
  says('waits', 'connecting');
  let timer;
  let was = false;
  const heard = (event) => {
    const { study_instance: study, kind } = JSON.parse(event.data);
    if (list) {
      clearTimeout(timer);
      timer = setTimeout(() => inTurn(refresh), 300);
    } else if ($('#study')?.dataset.uid === study && ['analysed', 'not-analysed', 'analysis-failed', 'alert'].includes(kind)) {
      toast('This study has a new outcome: reload the page.');
    }
  };
  const listen = () => {
    const source = new EventSource('/api/events');
    source.onopen = () => {
      says('on', 'live');
      // What happened while nobody listened.
      if (was && list) inTurn(refresh);
      was = true;
    };
    source.onerror = () => {
      says('off', 'not live');
      // A browser comes back by itself, but not when it was refused: too many listen, say.
      if (source.readyState !== EventSource.CLOSED) return;
      was = true;
      setTimeout(listen, 10_000);
    };
    source.onmessage = heard;
  };
  listen();
}

if (list) {
  list.addEventListener('click', (event) => {
    const more = event.target.closest('button[data-next]');
    if (more) {
      more.disabled = true;
      inTurn(readOn);
      return;
    }
    const row = event.target.closest('tr[data-href]');
    if (row && !event.target.closest('a') && !getSelection().toString()) location.href = row.dataset.href;
  });
  for (const field of $$('form.filter select')) field.addEventListener('change', () => field.form.requestSubmit());
}
if (list || $('#study')) follow();

// The viewer.
const picture = $('#slice');
const strip = $('#strip');
const viewer = picture && {
  slices: $$('rect.slice', strip).map((bar) => ({ ...bar.dataset, y: bar.y.baseVal.value, height: bar.height.baseVal.value })),
  index: Number(picture.dataset.index),
  window: 'brain',
  overlay: 'mask',
  kept: new Map(),

  url(index) {
    const { uid, frame, map } = this.slices[index];
    // A slice without a map is shown as it is, and the legend says so.
    const overlay = this.overlay === 'map' && !map ? 'false' : this.overlay;
    const query = new URLSearchParams({ window: this.window, overlay });
    if (frame) query.set('frame', frame);
    return `/api/studies/${$('#study').dataset.uid}/slices/${uid}/picture?${query}`;
  },
  keep(index) {
    const url = this.url(index);
    if (!this.kept.has(url)) {
      const image = new Image();
      image.src = url;
      this.kept.set(url, image);
    }
    return this.kept.get(url);
  },
  show(index) {
    this.index = Math.min(Math.max(index, 0), this.slices.length - 1);
    const { p, masked, map, y, height } = this.slices[this.index];
    const url = this.url(this.index);
    const image = this.keep(this.index);
    // What is shown is always the slice that is named.
    picture.classList.toggle('loading', !image.complete);
    picture.src = url;
    picture.alt = `Slice ${this.index + 1} of ${this.slices.length}`;
    picture.dataset.index = this.index;
    const words = `Slice ${this.index + 1} of ${this.slices.length} · probability ${p}`;
    $('#readout').textContent = masked > 0 ? `${words} · mask of ${masked} pixels` : words;
    strip.setAttribute('aria-valuenow', this.index + 1);
    strip.setAttribute('aria-valuetext', words);
    $('#legend').hidden = this.overlay !== 'map';
    $('#mapless').hidden = Boolean(map);
    const cursor = $('#cursor');
    const size = Math.max(height, 6);
    cursor.setAttribute('y', Math.max(0, Math.min(y + height / 2 - size / 2, 512 - size)));
    cursor.setAttribute('height', size);
    this.ahead();
  },
  ahead() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      for (const step of [1, -1, 2, -2, 3, -3]) {
        if (this.slices[this.index + step]) this.keep(this.index + step);
      }
    }, 80);
  },
  choose(name) {
    this.window = name;
    for (const button of $$('[data-window]')) button.setAttribute('aria-checked', button.dataset.window === name);
    this.show(this.index);
  },
  lay(name) {
    this.overlay = name;
    for (const button of $$('[data-overlay]')) button.setAttribute('aria-checked', button.dataset.overlay === name);
    this.show(this.index);
  },
  layNext() {
    const names = $$('[data-overlay]').map((button) => button.dataset.overlay);
    this.lay(names[(names.indexOf(this.overlay) + 1) % names.length]);
  },
  best() {
    return this.slices.reduce((best, slice, index) => (Number(slice.p) > Number(this.slices[best].p) ? index : best), 0);
  },
  next() {
    const from = this.slices.findIndex((slice, index) => index > this.index && Number(slice.masked) > 0);
    return from >= 0 ? from : this.slices.findIndex((slice) => Number(slice.masked) > 0);
  },
};

if (viewer) {
  picture.addEventListener('load', () => picture.classList.remove('loading'));
  picture.addEventListener('error', () => {
    picture.alt = `Slice ${viewer.index + 1} cannot be shown`;
    toast(picture.alt, true);
  });
  for (const button of $$('[data-window]')) button.addEventListener('click', () => viewer.choose(button.dataset.window));
  for (const button of $$('[data-overlay]')) button.addEventListener('click', () => viewer.lay(button.dataset.overlay));
  const at = (event) => {
    const box = strip.getBoundingClientRect();
    viewer.show(Math.floor(((event.clientY - box.top) / box.height) * viewer.slices.length));
  };
  strip.addEventListener('pointerdown', (event) => { strip.setPointerCapture(event.pointerId); at(event); });
  strip.addEventListener('pointermove', (event) => { if (event.buttons) at(event); });
  let turned = 0;
  $('.stage').addEventListener('wheel', (event) => {
    event.preventDefault();
    turned += event.deltaY;
    if (Math.abs(turned) < 20) return;
    viewer.show(viewer.index + Math.sign(turned));
    turned = 0;
  }, { passive: false });
  viewer.show(viewer.index);
}

// Keys.
const places = { w: '/', q: '/queues', t: '/tasks', s: '/statistics', m: '/models', h: '/health' };
let goes = false;
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $('dialog[open]')) return;
  const typing = event.target.closest('input, select, textarea');
  if (typing) {
    if (event.key === 'Escape') typing.blur();
    return;
  }
  const { key } = event;
  if (goes) {
    goes = false;
    if (places[key]) location.href = places[key];
    return;
  }
  const far = event.shiftKey ? 5 : 1;
  const keys = {
    '?': () => $('#keys')?.showModal(),
    g: () => { goes = true; setTimeout(() => { goes = false; }, 1500); },
    u: () => { location.href = '/'; },
    '/': () => $('#search')?.focus(),
    ...(list && {
      j: () => move(1),
      k: () => move(-1),
      Enter: () => { const row = $('tr[aria-selected]', list); if (row) location.href = row.dataset.href; },
    }),
    ...(viewer && {
      ArrowDown: () => viewer.show(viewer.index + far),
      ArrowUp: () => viewer.show(viewer.index - far),
      Home: () => viewer.show(0),
      End: () => viewer.show(viewer.slices.length - 1),
      p: () => viewer.show(viewer.best()),
      n: () => viewer.show(Math.max(viewer.next(), 0)),
      o: () => viewer.layNext(),
    }),
  };
  if (viewer && /^[1-5]$/.test(key)) keys[key] = () => viewer.choose($$('[data-window]')[Number(key) - 1].dataset.window);
  const does = keys[key];
  if (!does || (key === 'Enter' && event.target.closest('a, button, summary'))) return;
  event.preventDefault();
  does();
});

localise(document);
