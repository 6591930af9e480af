// The text on the screen: words with their times, marks of doubt, summary and notes.
//
// A document is `{id, name, transcript, undo, redo}`, and `live` while its sound is being recorded. A transcript is what
// edited.py makes of one, with `state` ("live", "running", "done", "stopped"), the `seconds` that it took, and what it was
// `made` with: {model, decoder, label, hotwords}. It is never changed but replaced, so that undo is a list of earlier ones.

const tab = element.closest('#transcribe');
const find = (selector) => element.querySelector(selector);
const box = find('.text');

const LISTED = 10; // kept documents; of others only the number is told

let shown = null; // the document on the screen
let options = null; // as they are chosen: {model, decoder, hotwords}
let spoken = null; // live text of the utterance that is being spoken: {partial, start, stable}, its first letters stay
let words = []; // the elements of the words, in order; each has its `word`
let chosenBelow = null; // words less likely than this are marked; null: as `doubtfulBelow` says
let marking = true;

const isGrowing = (transcript) => ['live', 'running'].includes(transcript.state);

function show() {
  const segments = [...(shown?.transcript?.segments ?? []), ...(spoken ? [spoken] : [])];
  const at = selected();
  const hadFocus = box.contains(document.activeElement);
  // Only paragraphs of other segments than before are made anew.
  segments.forEach((segment, index) => {
    const old = box.children[index];
    if (old?.segment === segment) return;
    const made = paragraph(segment);
    old ? old.replaceWith(made) : box.append(made);
  });
  while (box.children.length > segments.length) box.lastChild.remove();
  words = [...box.querySelectorAll('.word')];
  if (at >= 0) select(at, hadFocus);

  const any = segments.length > 0 || shown?.undo.length > 0;
  const finished = any && !isGrowing(shown.transcript);
  find('.transcript').hidden = !any;
  tab.classList.toggle('has-text', segments.length > 0);
  for (const part of ['.saving', '.legend', '.hint']) find(part).hidden = !finished;
  find('[data-do=undo]').disabled = !shown?.undo.length;
  find('[data-do=redo]').disabled = !shown?.redo.length;
  for (const button of element.querySelectorAll('[data-save]')) {
    button.setAttribute('aria-label', `Save ${fileName(button.dataset.save)}`);
  }
  mark();
  showSummary();
  showKept();
  if (finished) tellCaptions();
}

const fileName = (format) => `${shown?.name.replace(/\.[^.]*$/, '')}.${format}`;

function make(tag, className, text = '') {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function clock(seconds) {
  const parts = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map((part) => String(Math.floor(part)));
  if (parts[0] === '0') parts.shift();
  return [parts[0], ...parts.slice(1).map((part) => part.padStart(2, '0'))].join(':');
}

const labelOf = ({ speaker, channel }) => speaker || channel;

function paragraph(segment) {
  const made = make('p', 'segment');
  made.segment = segment;
  const time = make('time', '', clock(segment.start));
  time.dataset.start = segment.start.toFixed(2);
  time.title = 'Play from here';
  const line = make('span', 'line');
  if (segment.partial) {
    line.append(segment.partial.slice(0, segment.stable), make('span', 'unstable', segment.partial.slice(segment.stable)));
    made.classList.add('partial');
  }
  segment.words?.forEach((word, index) => {
    const span = make('span', 'word', word.text);
    span.word = word;
    span.tabIndex = -1;
    span.dataset.start = word.start.toFixed(2);
    span.dataset.end = word.end.toFixed(2);
    // No recogniser is certain.
    const likely = word.edited ? 'corrected' : `${Math.min(Math.round(100 * word.confidence), 99)} % likely`;
    span.title = `${word.start.toFixed(2)}–${word.end.toFixed(2)} s · ${likely}`;
    line.append(index ? ' ' : '', span);
  });
  made.append(time);
  if (labelOf(segment)) made.append(make('b', 'channel', `${labelOf(segment)}:`));
  made.append(line);
  return made;
}

// As the server says, but a poor recording has no more than a part of its words marked.
function doubtfulBelow() {
  if (!marking) return 0;
  if (chosenBelow !== null) return chosenBelow;
  const confidences = words.map((span) => span.word.confidence).sort((a, b) => a - b);
  return Math.min(props.doubtful_below, confidences[Math.ceil(props.marked_at_most * words.length)] ?? 1);
}

function mark() {
  const below = doubtfulBelow();
  let count = 0;
  for (const span of words) {
    const doubtful = span.word.confidence < below;
    span.classList.toggle('doubtful', doubtful);
    count += doubtful;
  }
  if (marking) find('.legend input[type=range]').value = Math.round(100 * below);
  find('.legend input[type=range]').disabled = !marking;
  find('.legend output').textContent = marking ? `${Math.round(100 * below)} %: ${count} of ${words.length}` : '';
  find('[data-do=doubtful]').disabled = !count;
}

const counted = (count) => `${count} word${count === 1 ? '' : 's'}`;
const wordsOf = (transcript) => transcript?.segments.flatMap((segment) => segment.words) ?? [];

function showSummary() {
  const transcript = shown?.transcript;
  if (!transcript) return;
  const { model, decoder, label, hotwords } = transcript.made;
  const all = wordsOf(transcript);
  const edited = all.filter((word) => word.edited).length;
  const by = [model, label, hotwords && `expecting ${hotwords}`];
  const parts = {
    live: [`${counted(all.length)} so far`, ...by],
    running: [`${counted(all.length)} so far`, ...by],
    stopped: [`Stopped after ${clock(transcript.duration)}; ${counted(all.length)} so far`, ...by],
    done: [`${transcript.duration.toFixed(1)} s of audio, ${counted(all.length)}`, ...by, `${transcript.seconds.toFixed(2)} s`],
  }[transcript.state];
  tab.querySelector('.summary').textContent = [...parts, edited && `${edited} corrected`].filter(Boolean).join(' · ');
  const notes = [...transcript.warnings];
  const made = [model, decoder, hotwords].join();
  if (!isGrowing(transcript) && options && made !== [options.model, options.decoder, options.hotwords].join()) {
    notes.push('The options have changed, and this text was made with others. “Transcribe again” makes it anew.');
  }
  if (shown.soundless) notes.push('Only the text of this recording is kept in this browser, not its sound.');
  find('.notes').replaceChildren(...notes.map((note) => make('p', 'notice', note)));
}

function showKept() {
  const others = [...kept.documents.values()].filter((document) => document.id !== shown?.id).reverse();
  const listed = others.slice(0, LISTED);
  find('.kept .others').replaceChildren(
    ...listed.map((document) => {
      const item = make('li', '', `${document.name} · ${counted(wordsOf(document.transcript).length)} `);
      const button = make('button', '', 'Bring back');
      button.type = 'button';
      button.dataset.reopen = document.id;
      button.setAttribute('aria-label', `Bring back ${document.name}`);
      item.append(button);
      return item;
    }),
    ...(others.length > LISTED ? [make('li', '', `and ${others.length - LISTED} more, which Search finds`)] : []),
  );
  find('[data-do=search]').hidden = !kept.documents.size;
  find('[data-do=keep]').checked = kept.on;
  find('[data-do=forget]').hidden = !kept.documents.size;
  find('.kept .failure').textContent =
    kept.on && kept.failure ? `This browser keeps nothing: ${kept.failure}. Save what you need.` : '';
}
