// Runs once in the tab "Transcribe". Gradio provides `element` (the text box), `trigger`, `props` and `watch`.

const tab = element.closest('#transcribe');

// The media element of Gradio's player, in WaveSurfer's shadow root. Gradio's `playback_position` can set the time, but
// cannot start playing, and querying it takes a request to the server.
const player = () => tab.querySelector('#sound #waveform > div')?.shadowRoot?.querySelector('audio');

let words = [];
watch('value', () => {
  words = [...element.querySelectorAll('.word')];
  if (words.length && !element.querySelector('.word[tabindex="0"]')) words[0].tabIndex = 0;
});

function playFrom(start) {
  const audio = player();
  if (!audio) return;
  audio.currentTime = start;
  audio.play();
}

function draw(word) {
  const segment = word.closest('.segment');
  const drawing = tab.querySelector('.drawing');
  const start = Number(word.dataset.start);
  if (!segment || (drawing && start >= drawing.dataset.from && start < drawing.dataset.to)) return;
  trigger('click', { segment: Number(segment.dataset.segment) });
}

tab.addEventListener('click', (event) => {
  const timed = event.target.closest('[data-start]');
  if (timed && getSelection().isCollapsed) {
    playFrom(Number(timed.dataset.start));
    draw(timed);
  }
  const save = event.target.closest('[data-save]');
  if (save) download(save.dataset.save);
  const copy = event.target.closest('[data-copy]');
  if (copy) copyText(copy);
});

// The Tab key stops at the text once; inside it the arrow keys move.
element.addEventListener('keydown', (event) => {
  const at = words.indexOf(document.activeElement);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.target.closest('.saving')) return;
  if (step && words.length) {
    move(Math.min(Math.max(at + step, 0), words.length - 1));
  } else if (event.key === 'Home') {
    move(0);
  } else if (event.key === 'End') {
    move(words.length - 1);
  } else if ((event.key === 'Enter' || event.key === ' ') && at >= 0) {
    words[at].click();
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation(); // or Gradio's player would seek
});

function move(index) {
  words[index].tabIndex = -1;
  words[index].focus();
}

// Scrolls the text box, not the page.
function keepVisible(word) {
  const box = element.querySelector('.text');
  const [inside, outside] = [word.getBoundingClientRect(), box.getBoundingClientRect()];
  if (inside.top < outside.top || inside.bottom > outside.bottom) box.scrollTop += inside.top - outside.top - 40;
}

function download(name) {
  const type = name.endsWith('.json') ? 'application/json' : 'text/plain';
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([props.files[name]], { type: `${type};charset=utf-8` }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function copyText(button) {
  const plain = Object.entries(props.files).find(([name]) => name.endsWith('.txt'))[1];
  await navigator.clipboard.writeText(plain);
  const label = button.textContent;
  button.textContent = 'Copied';
  setTimeout(() => (button.textContent = label), 1500);
}

// Gradio's component accepts only files whose type is audio. This lets the server also read the sound of videos and .webm
// recordings, and report files without sound more clearly than "invalid file type".
function setFiles(files, input) {
  const taken = new DataTransfer();
  for (const file of files) {
    const audio = file.type.startsWith('audio/');
    taken.items.add(audio ? file : new File([file], file.name, { type: 'audio/unknown' }));
  }
  input.files = taken.files;
}
const fileInput = () => tab.querySelector('#sound input[type=file]');
tab.addEventListener('click', () => fileInput()?.setAttribute('accept', 'audio/*,video/*'), true);
tab.addEventListener('change', ({ target }) => target === fileInput() && setFiles(target.files, target), true);
tab.addEventListener(
  'drop',
  (event) => {
    const input = fileInput();
    if (!input || !event.dataTransfer.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    setFiles(event.dataTransfer.files, input);
    input.dispatchEvent(new Event('change', { bubbles: true }));
  },
  true,
);

// During playback the current word is highlighted and a line moves through the picture.
let current;
setInterval(() => {
  const audio = player();
  if (!audio || (audio.paused && !current)) return;
  const now = audio.currentTime;
  const said = audio.paused ? undefined : words.find((word) => word.dataset.start <= now && now < word.dataset.end);
  if (said !== current) {
    current?.classList.remove('said');
    said?.classList.add('said');
    if (said) keepVisible(said);
    current = said;
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
