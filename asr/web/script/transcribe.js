// The document on the screen: how it comes, changes and goes; mouse and keys.
//
// Gradio runs the scripts of this folder once, in the order of transcribe.py and in one scope, and provides `element` (around
// transcript.html), `trigger`, `props`, `server`, `upload` and `watch`.

const SHOWN = 'hark.shown'; // in sessionStorage: the document that a refresh brings back

let page = ''; // the server's name of this page
let restored = null; // the sound that goes back into the player

window.hark = {
  // Gradio calls these, by listeners with `js`.
  opened(sound) {
    if (!shown?.live) {
      close();
      shown = { id: Date.now(), transcript: null, undo: [], redo: [] };
      sessionStorage.setItem(SHOWN, shown.id);
    }
    recording = shown.live = false; // the live text stays until there is a better one
    shown.name = sound.orig_name || 'recording.wav';
    shown.path = sound.path;
    keepSound(shown, file?.name === sound.orig_name ? file : null, sound.url);
    file = null;
    show();
  },
  closed() {
    if (shown) tell(`“${shown.name}” is closed, not lost: it can be brought back below.`);
    close();
    show();
  },
  recording() {
    recording = true;
  },
  chose(model, decoder, hotwords) {
    options = { model, decoder, hotwords: hotwords.trim() };
    showSummary();
  },
  restored: () => restored,
  queued: () => several.queued,
};

async function keepSound(document, sound, url) {
  await kept.save(document);
  if (document === shown) showFilm(sound);
  if (!sound) {
    const response = await fetch(url);
    sound = response.ok && (await response.blob());
  }
  document.soundless = !sound || sound.size > KEPT_SOUND_MB * 1e6;
  if (!document.soundless) await kept.saveSound(document.id, sound);
  await kept.save(document);
  showKept();
  showSummary();
}

function close() {
  finishCorrecting();
  shown = spoken = null;
  drawn = null;
  wanted = null;
  sessionStorage.removeItem(SHOWN);
  box.replaceChildren();
  find('.spoken').replaceChildren();
  showFilm(null);
}

// A document that was kept: its text at once, its sound as soon as the server has it again.
async function reopen(document) {
  close();
  shown = document;
  shown.live = false;
  sessionStorage.setItem(SHOWN, document.id);
  if (document.transcript && isGrowing(document.transcript)) document.transcript = { ...document.transcript, state: 'stopped' };
  tell('');
  show();
  const sound = await kept.sound(document.id);
  if (shown === document) showFilm(sound);
  restored = null;
  if (sound) {
    const given = new File([sound], document.name, { type: sound.type });
    const { path, url } = await upload(given);
    document.path = path;
    restored = { path, url, orig_name: document.name, size: sound.size, meta: { _type: 'gradio.FileData' } };
  }
  if (shown !== document) return;
  trigger('restore');
}

watch('feed', () => {
  const { page: name, number, path, ...transcript } = JSON.parse(JSON.stringify(props.feed)); // plain, as the database wants it
  page = name;
  if (transcript.state === 'attached' && shown) redraw();
  if (transcript.state === 'attached' || !transcript.state) return;
  // What was on its way while another document was opened belongs to the one before.
  const owner = shown?.path === path ? shown : [...kept.documents.values()].findLast((one) => one.path === path);
  if (!owner) return;
  if (transcript.state === 'unreadable') {
    if (!owner.transcript) kept.remove(owner.id).then(showKept);
    return;
  }
  const again = owner.transcript && owner.transcript.state !== 'running';
  if (again && transcript.state !== 'done') return; // the text before stays until there is a new one
  if (owner !== shown) {
    if (again) owner.undo.push(owner.transcript);
    owner.transcript = transcript;
    kept.save(owner);
    return;
  }
  finishCorrecting();
  if (again) change(transcript);
  else replace(transcript);
  if (transcript.state === 'running') return;
  redraw();
  if (!document.activeElement.matches('input, textarea')) box.focus({ preventScroll: true });
});

function replace(transcript) {
  shown.transcript = transcript;
  kept.save(shown);
  show();
}

// Can be undone.
function change(transcript) {
  shown.undo.push(shown.transcript);
  shown.redo = [];
  replace(transcript);
}

function goBack(from, to) {
  finishCorrecting();
  if (!shown?.[from].length) return;
  shown[to].push(shown.transcript);
  replace(shown[from].pop());
  redraw();
}

// ---- Mouse

const actions = {
  correct: () => correct(words[Math.max(selected(), 0)]),
  undo: () => goBack('undo', 'redo'),
  redo: () => goBack('redo', 'undo'),
  doubtful: () => nextDoubtful(1),
  keys: () => find('dialog').showModal(),
  async copy(button) {
    const line = (segment) => `${labelOf(segment) ? `${labelOf(segment)}: ` : ''}${textOf(segment.words)}\n`;
    await navigator.clipboard.writeText(shown.transcript.segments.map(line).join(''));
    showCopied(button);
  },
  async link(button) {
    await navigator.clipboard.writeText(linkTo(words[Math.max(selected(), 0)].word));
    showCopied(button);
  },
  replace: () => toggle('replace', '.replacing'),
  speaker: () => toggle('speaker', '.naming'),
  stopSeveral: () => several.stop(),
  closeSeveral: () => several.close(),
  async forget() {
    tab.querySelector('#sound [aria-label="Clear"]')?.click();
    close();
    several.stop();
    several.close();
    await kept.forget();
    tell('');
    show();
  },
};

// Opens or closes a form below its button.
function toggle(action, name) {
  const form = find(name);
  form.hidden = !form.hidden;
  find(`[data-do=${action}]`).setAttribute('aria-expanded', !form.hidden);
  if (!form.hidden) form.querySelector('input').focus();
}

function showCopied(button) {
  button.dataset.label ??= button.textContent; // it may be pressed again before it is back
  button.textContent = 'Copied';
  setTimeout(() => (button.textContent = button.dataset.label), 1500);
}

const settings = {
  search: (input) => showFound(input.value.trim()),
  async keep(box) {
    await kept.turn(box.checked);
    showKept();
  },
  mark(box) {
    marking = box.checked;
    mark();
  },
  below(slider) {
    chosenBelow = slider.value / 100;
    mark();
  },
};

tab.addEventListener('click', (event) => {
  const timed = event.target.closest('[data-start]');
  if (timed && !correcting?.contains(timed) && getSelection().isCollapsed) {
    play(Number(timed.dataset.start));
    draw(timed.closest('.segment') && timed);
    if (timed.matches('.text .word')) select(words.indexOf(timed));
  }
  const button = event.target.closest('button');
  if (button?.dataset.save) save(button.dataset.save);
  if (button?.dataset.zip) several.save(button.dataset.zip);
  if (button?.dataset.reopen) reopen(kept.documents.get(Number(button.dataset.reopen)));
  actions[button?.dataset.do]?.(button);
});
element.addEventListener('dblclick', ({ target }) => correct(target.closest('.text .word')));
element.addEventListener('input', ({ target }) => settings[target.dataset.do]?.(target));
find('.replacing').addEventListener('submit', (event) => {
  event.preventDefault();
  const { find: sought, with: replacement } = event.target.elements;
  const count = sought.value ? replaceAll(sought.value, replacement.value) : 0;
  event.target.querySelector('output').textContent = `${count} replaced`;
});

find('.naming').addEventListener('submit', (event) => {
  event.preventDefault();
  nameSpeaker(event.target.elements.name.value.trim());
});

async function save(format) {
  finishCorrecting();
  const [name, content] = [fileName(format), await server.render({ transcript: shown.transcript, format })];
  const type = { json: 'application/json', docx: 'application/octet-stream' }[format] ?? 'text/plain;charset=utf-8';
  download(name, content, type);
}

// Saves what the server sent in base64.
function download(name, content, type) {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], { type }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

// ---- Keys

const keys = {
  ' ': playOrPause,
  Escape: pause,
  Enter: () => words[selected()]?.click(),
  ArrowRight: () => select(selected() + 1),
  ArrowDown: () => select(selected() + 1),
  ArrowLeft: () => select(selected() - 1),
  ArrowUp: () => select(selected() - 1),
  Home: () => select(0),
  End: () => select(words.length - 1),
  n: () => nextDoubtful(1),
  N: () => nextDoubtful(-1),
  e: actions.correct,
  F2: actions.correct,
  s: actions.speaker,
  '?': actions.keys,
};

document.addEventListener(
  'keydown',
  (event) => {
    const { target, key } = event;
    const command = event.ctrlKey || event.metaKey;
    let action;
    if (correcting?.contains(target)) {
      if (key === 'Enter' || key === 'Escape') action = () => (finishCorrecting(), select(selected()));
      if (command && key === ' ') action = playOrPause;
    } else if (!shown || !tab.offsetParent || find('dialog').open || target.closest('input, textarea, select, [contenteditable]')) {
      return;
    } else if (command && key.toLowerCase() === 'z') {
      action = event.shiftKey ? actions.redo : actions.undo;
    } else if (command && key === 'y') {
      action = actions.redo;
    } else if (!command && !event.altKey && (target === document.body || box.contains(target))) {
      action = keys[key];
    }
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // or Gradio's player would seek
    action();
  },
  true,
);

addEventListener('beforeunload', (event) => {
  finishCorrecting();
  if (recording || kept.unsaved) event.preventDefault();
});

addEventListener('hashchange', () => {
  const { document, seconds } = addressed();
  if (document) openAt(document, seconds);
});

kept.load().then(() => {
  const linked = addressed();
  if (linked.document) return openAt(linked.document, linked.seconds);
  const document = kept.documents.get(Number(sessionStorage.getItem(SHOWN)));
  if (document && !shown) reopen(document);
  else show();
});
