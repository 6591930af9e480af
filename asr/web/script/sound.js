// The player, and how sound comes in: files that are chosen or dropped, and the microphone.

// The media element of Gradio's player, in WaveSurfer's shadow root. Gradio's `playback_position` can set the time, but
// cannot start playing, and querying it takes a request to the server.
const player = () => tab.querySelector('#sound #waveform > div')?.shadowRoot?.querySelector('audio');

let recording = false;
let playUntil = Infinity;
let wanted = null; // {start, until, deadline} of playing that has not begun
const PLAYABLE_MILLISECONDS = 60_000; // until when it must: a recording that is brought back is uploaded first

const STOPPED_SECONDS = 0.6; // of playing, in which it may be stopped

// Gradio loads the player late, and stops it once more when it is ready: then playing is begun again.
function play(start, until = Infinity) {
  wanted = { start, until, deadline: Date.now() + PLAYABLE_MILLISECONDS };
  if (player()) player().currentTime = start;
  beginPlaying();
}

function beginPlaying() {
  const audio = player();
  const { start, until, deadline } = wanted;
  if (audio?.readyState && audio.paused) {
    audio.currentTime = start;
    audio.play().catch(() => {}); // stopped again
  }
  playUntil = until;
  const begun = audio && (audio.ended || (!audio.paused && audio.currentTime > start + STOPPED_SECONDS));
  if (begun || Date.now() > deadline) wanted = null;
}

function pause() {
  wanted = null;
  player()?.pause();
}

function playOrPause() {
  const audio = player();
  playUntil = Infinity;
  if (audio?.paused) play(audio.currentTime);
  else pause();
}

// Names for Gradio's controls, for screen readers and tooltips: its own are missing, or like "by 0.5327 seconds".
function nameControls() {
  const seconds = Number(tab.querySelector('#sound .skip')?.ariaLabel.match(/[\d.]+/)?.[0]).toFixed(1);
  const names = {
    '.cc-button': 'CC: captions',
    '.playback': `${tab.querySelector('#sound .playback')?.textContent} speed`,
    '.rewind': `Back by ${seconds} s`,
    '.skip': `Forward by ${seconds} s`,
  };
  for (const [control, name] of Object.entries(names)) {
    const button = tab.querySelector(`#sound ${control}`);
    if (button && button.ariaLabel !== name) button.ariaLabel = button.title = name;
  }
  tab.querySelector('#sound .upload-container')?.removeAttribute('aria-label'); // which is not what it shows
}
new MutationObserver(nameControls).observe(tab, { childList: true, subtree: true, attributeFilter: ['aria-label'] });

// During playback the current word is highlighted and a line moves through the picture.
let said;
setInterval(() => {
  const audio = player();
  if (wanted) beginPlaying();
  if (!audio) return;
  follow(audio);
  if (audio.paused && !said) return;
  const now = audio.currentTime;
  if (now >= playUntil) pause();
  const next = audio.paused ? undefined : words.find(({ word }) => word.start <= now && now < word.end);
  if (next !== said) {
    said?.classList.remove('said');
    next?.classList.add('said');
    if (next) keepVisible(next);
    said = next;
  }
  const drawing = tab.querySelector('.drawing');
  if (drawing) {
    const { from, to } = drawing.dataset;
    const fraction = (now - from) / (to - from);
    drawing.style.setProperty('--now', `${100 * fraction}%`);
    drawing.classList.toggle('playing', fraction >= 0 && fraction <= 1);
    const frame = drawing.parentElement;
    const beyond = fraction * drawing.offsetWidth - frame.scrollLeft;
    if (said && (beyond < 0 || beyond > 0.9 * frame.clientWidth)) frame.scrollLeft += beyond - 40;
  }
}, 60);

// Scrolls the text box, not the page.
function keepVisible(word) {
  const [inside, outside] = [word.getBoundingClientRect(), box.getBoundingClientRect()];
  if (inside.top < outside.top || inside.bottom > outside.bottom) box.scrollTop += inside.top - outside.top - 40;
}

// The server draws waveform and log-mel of a word's segment. Of several clicks the last wins, whatever comes back last.
let drawn = null;
async function draw(word) {
  const segment = word?.closest('.segment').segment;
  if (!segment || segment === drawn) return;
  drawn = segment;
  const picture = await server.draw({ page, segment, below: doubtfulBelow() });
  if (drawn === segment) find('.spoken').innerHTML = picture;
}

function redraw() {
  drawn = null;
  draw(words[Math.max(selected(), 0)]);
}

let captionsTimer;
function tellCaptions() {
  const { transcript } = shown;
  clearTimeout(captionsTimer);
  captionsTimer = setTimeout(() => {
    trigger('captions', { transcript });
    captionFilm(transcript);
  }, 100);
}

// ---- Files

const fileInput = () => tab.querySelector('#sound input[type=file]');
const sourceButton = (label) => tab.querySelector(`#sound .source-selection [aria-label="${label}"]`);
let file = null; // that was given last; saves fetching it from the server

// Gradio's component accepts only files whose type is audio. This lets the server also read the sound of videos and .webm
// recordings, and report files without sound more clearly than "invalid file type".
const asSound = (given) =>
  given.type.startsWith('audio/') ? given : new File([given], given.name, { type: 'audio/unknown' });

function setFile(input, given) {
  const taken = new DataTransfer();
  taken.items.add(asSound(given));
  input.files = taken.files;
  file = given;
}
function prepareInput() {
  const input = fileInput();
  if (input) Object.assign(input, { accept: 'audio/*,video/*', multiple: true });
}
tab.addEventListener('click', prepareInput, true);
tab.addEventListener(
  'change',
  (event) => {
    const { target } = event;
    if (target !== fileInput() || !target.files.length) return;
    if (target.files.length === 1) return setFile(target, target.files[0]);
    event.stopPropagation();
    several.add([...target.files]);
    target.value = '';
  },
  true,
);

// Anywhere on the page: beside the player the browser would leave the page for the file.
addEventListener('dragover', (event) => event.dataTransfer.types.includes('Files') && event.preventDefault(), true);
addEventListener(
  'drop',
  async (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    if (recording) return tell('A recording is going on: stop it, then drop the file again.');
    const [first, ...others] = await filesIn(event.dataTransfer);
    tell(first ? '' : 'There are no recordings in this folder.');
    if (!first) return;
    if (others.length) return several.add([first, ...others]);
    await until(() => fileInput() || sourceButton('Upload file'));
    if (!fileInput()) sourceButton('Upload file').click(); // closes what is open
    await until(fileInput);
    setFile(fileInput(), first);
    fileInput().dispatchEvent(new Event('change', { bubbles: true }));
  },
  true,
);

// What is dropped; of folders, and those in them, the sounds and videos.
async function filesIn(dropped) {
  const entries = [...dropped.items].map((item) => item.webkitGetAsEntry()).filter(Boolean); // now: later they are gone
  if (!entries.some((entry) => entry.isDirectory)) return [...dropped.files];
  const asked = (entry, method) => new Promise((resolve, reject) => entry[method](resolve, reject));
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) {
      found.push(await asked(entry, 'file'));
      continue;
    }
    const reader = entry.createReader();
    for (let part; (part = await asked(reader, 'readEntries')).length; ) entries.push(...part);
  }
  return found.filter(({ type }) => /^(audio|video)\//.test(type)).sort((a, b) => a.name.localeCompare(b.name));
}

async function until(isTrue) {
  while (!isTrue()) await new Promise((next) => setTimeout(next, 20));
}

function tell(message) {
  const note = tab.querySelector('#told');
  note.textContent = message;
  note.hidden = !message;
}

// ---- Microphone

const MICROPHONE = {
  NotAllowedError: 'The microphone is blocked for this page: allow it beside the address (or in the browser’s settings), and press “Record audio” again.',
  NotFoundError: 'No microphone was found: connect one, and press “Record audio” again.',
  NotReadableError: 'The microphone is in use by another program, or broken: free it, and press “Record audio” again.',
  insecure: 'Browsers allow the microphone only over https or on localhost. Open this page that way, or upload a file.',
};

// Asked before Gradio's recorder opens, which closes what is open, and which would record nothing.
let allowed = false;
tab.addEventListener(
  'click',
  async (event) => {
    const button = event.target.closest('[aria-label="Record audio"]');
    if (!button || allowed) return;
    event.preventDefault();
    event.stopPropagation();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      stream.getTracks().forEach((track) => track.stop());
    } catch (error) {
      const why = navigator.mediaDevices ? error.name : 'insecure';
      return tell(MICROPHONE[why] ?? `The microphone cannot be used: ${error.message || error.name}.`);
    }
    tell('');
    allowed = true;
    button.click();
    allowed = false;
  },
  true,
);
