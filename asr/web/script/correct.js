// Selecting words, and correcting their text. One segment is corrected at a time: its line is then an editable text.

let correcting = null; // that line

const selected = () => words.findIndex((word) => word.tabIndex === 0);

// The Tab key stops at the text once; inside it the arrow keys move.
function select(index, focus = true) {
  const word = words[clamp(index, 0, words.length - 1)];
  if (!word) return;
  for (const other of words) if (other.tabIndex === 0) other.tabIndex = -1;
  word.tabIndex = 0;
  if (!focus) return;
  word.focus({ preventScroll: true });
  keepVisible(word);
}

function correct(word) {
  const line = word?.closest('.line');
  if (!line || line === correcting || isGrowing(shown.transcript)) return;
  finishCorrecting();
  pause();
  select(words.indexOf(word), false);
  correcting = line;
  line.contentEditable = 'plaintext-only';
  line.setAttribute('role', 'textbox');
  line.setAttribute('aria-label', 'Text of this segment. Enter ends the correction.');
  line.focus({ preventScroll: true });
  getSelection().selectAllChildren(word);
}

// The transcript with the line's text, and the old and the new segment.
function corrections() {
  const old = correcting.closest('.segment').segment;
  const tokens = tokensOf(correcting.textContent);
  if (tokens.join(' ') === textOf(old.words)) return { transcript: shown.transcript };
  const made = tokens.length ? segmentOf(old, corrected(old.words, tokens)) : null;
  return { transcript: withSegment(shown.transcript, old, made), made };
}

function finishCorrecting() {
  if (!correcting) return;
  const { transcript, made } = corrections();
  correcting.closest('.segment').segment = null; // makes the paragraph anew
  correcting = null;
  if (transcript === shown.transcript) return show();
  change(transcript);
  if (made) align(made);
}

// Each letter is kept at once, though the whole correction is one step of undo.
element.addEventListener('input', ({ target }) => {
  if (target !== correcting) return;
  const { transcript } = corrections();
  if (transcript !== shown.transcript) {
    kept.write('documents', (store) =>
      store.put({ ...shown, transcript, undo: [...shown.undo, shown.transcript], redo: [] }),
    );
  }
});
element.addEventListener('focusout', ({ target }) => target === correcting && finishCorrecting());

// The server finds when corrected words are spoken; nothing happens if the segment has changed meanwhile.
async function align(segment) {
  const document = shown;
  const times = await server.find_word_times({ page, model: document.transcript.made.model, segment });
  if (!times || !document.transcript.segments.includes(segment)) return;
  if (correcting?.closest('.segment').segment === segment) return;
  document.transcript = withSegment(document.transcript, segment, segmentOf(segment, aligned(segment.words, times)));
  kept.save(document);
  if (document === shown) show();
}

function replaceAll(sought, replacement) {
  finishCorrecting();
  let transcript = shown.transcript;
  let count = 0;
  const changed = [];
  for (const segment of transcript.segments) {
    const parts = textOf(segment.words).split(sought);
    if (parts.length < 2) continue;
    count += parts.length - 1;
    const tokens = tokensOf(parts.join(replacement));
    const made = tokens.length ? segmentOf(segment, corrected(segment.words, tokens)) : null;
    transcript = withSegment(transcript, segment, made);
    if (made) changed.push(made);
  }
  if (count) change(transcript);
  changed.forEach(align);
  return count;
}

// Names who speaks in the segment of the selected word, and goes on to the next one; an empty name takes it back.
function nameSpeaker(name) {
  finishCorrecting();
  const at = Math.max(selected(), 0);
  const { segment } = words[at].closest('.segment');
  change(withSegment(shown.transcript, segment, { ...segment, speaker: name || null }));
  const next = words.findIndex((word, index) => index > at && word.word.start >= segment.end);
  select(next < 0 ? at : next, false);
  keepVisible(words[Math.max(selected(), 0)]);
  const known = new Set(shown.transcript.segments.map(({ speaker }) => speaker).filter(Boolean));
  find('#speakers').replaceChildren(...[...known].map((speaker) => make('option', '', speaker)));
}

function nextDoubtful(direction) {
  finishCorrecting();
  const doubtful = words.filter((word) => word.classList.contains('doubtful'));
  const from = selected();
  const beyond = doubtful.filter((word) => direction * (words.indexOf(word) - from) > 0);
  const word = direction > 0 ? (beyond[0] ?? doubtful[0]) : (beyond.at(-1) ?? doubtful.at(-1));
  if (!word) return;
  select(words.indexOf(word));
  play(word.word.start, word.word.end + 0.2);
  draw(word);
}
