// Runs once in the tab "Transcribe"; Gradio gives `element` (the box of the text), `trigger`, `props` and `watch`.

const tab = element.closest('#transcribe');

// Gradio's player keeps its media element in WaveSurfer's shadow root. `playback_position` could set the time, but
// neither start the sound nor tell the page where it is without asking the server each time.
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

// The text is one stop of the Tab key; inside it the arrow keys move.
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
  event.stopPropagation(); // Gradio's player would skip on the arrow keys
});

function move(index) {
  words[index].tabIndex = -1;
  words[index].focus();
}

// Scrolls the box of the text, never the page.
function keepInSight(word) {
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

// Gradio's box takes only what the browser calls audio. The sound of a video or of a .webm recording is welcome, too,
// and about a file without sound the server says more than "invalid file type".
function handOver(files, input) {
  const taken = new DataTransfer();
  for (const file of files) {
    const audio = file.type.startsWith('audio/');
    taken.items.add(audio ? file : new File([file], file.name, { type: 'audio/unknown' }));
  }
  input.files = taken.files;
}
const fileInput = () => tab.querySelector('#sound input[type=file]');
tab.addEventListener('click', () => fileInput()?.setAttribute('accept', 'audio/*,video/*'), true);
tab.addEventListener('change', ({ target }) => target === fileInput() && handOver(target.files, target), true);
tab.addEventListener(
  'drop',
  (event) => {
    const input = fileInput();
    if (!input || !event.dataTransfer.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    handOver(event.dataTransfer.files, input);
    input.dispatchEvent(new Event('change', { bubbles: true }));
  },
  true,
);

// While the sound plays, the word that is said is marked in the text and a line runs through the picture.
let current;
setInterval(() => {
  const audio = player();
  if (!audio || (audio.paused && !current)) return;
  const now = audio.currentTime;
  const said = audio.paused ? undefined : words.find((word) => word.dataset.start <= now && now < word.dataset.end);
  if (said !== current) {
    current?.classList.remove('said');
    said?.classList.add('said');
    if (said) keepInSight(said);
    current = said;
  }
  const drawing = tab.querySelector('.drawing');
  if (drawing) {
    const { from, to } = drawing.dataset;
    const share = (now - from) / (to - from);
    drawing.style.setProperty('--now', `${100 * share}%`);
    drawing.classList.toggle('playing', share >= 0 && share <= 1);
    const frame = drawing.parentElement;
    const beyond = share * drawing.offsetWidth - frame.scrollLeft;
    if (said && (beyond < 0 || beyond > 0.9 * frame.clientWidth)) frame.scrollLeft += beyond - 40;
  }
}, 60);
