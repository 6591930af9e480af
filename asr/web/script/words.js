// Words of a transcript and their times. A word is `{text, start, end, confidence}`, in seconds; none is ever changed.

const SHORTEST_SECONDS = 0.05; // of a word that found no room between its neighbours

const textOf = (words) => words.map((word) => word.text).join(' ');
const tokensOf = (text) => text.split(/\s+/).filter(Boolean);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// For each token the index of the old word that it is, or -1: the longest common subsequence.
function matches(words, tokens) {
  const [rows, columns] = [words.length, tokens.length];
  const common = Array.from({ length: rows + 1 }, () => new Uint16Array(columns + 1));
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      common[i][j] =
        words[i].text === tokens[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const found = new Array(columns).fill(-1);
  for (let i = 0, j = 0; i < rows && j < columns; ) {
    if (words[i].text === tokens[j]) found[j++] = i++;
    else if (common[i + 1][j] >= common[i][j + 1]) i++;
    else j++;
  }
  return found;
}

// The words of a corrected text. Those that stayed keep their times; the others share, by their length, the time of what
// they replace, or the pause that they were put into, and are sure.
function corrected(words, tokens) {
  const from = matches(words, tokens);
  const result = [];
  for (let j = 0; j < tokens.length; ) {
    if (from[j] >= 0) {
      result.push(words[from[j++]]);
      continue;
    }
    let next = j;
    while (next < tokens.length && from[next] < 0) next++;
    const [first, last] = [j ? from[j - 1] + 1 : 0, next < tokens.length ? from[next] : words.length]; // replaced
    let [start, end] = [words[first]?.start, words[last - 1]?.end];
    if (first === last) [start, end] = [words[first - 1]?.end ?? words[0].start, words[first]?.start ?? words.at(-1).end];
    const perLetter = Math.max(end - start, 0) / tokens.slice(j, next).join('').length;
    for (; j < next; j++) {
      const length = perLetter * tokens[j].length;
      result.push({ text: tokens[j], start, end: start + length, confidence: 1, edited: true });
      start += length;
    }
  }
  return result;
}

// The same words with the aligner's times ([start, end] of each) for those that were edited.
function aligned(words, times) {
  return words.map((word, at) => {
    if (!word.edited) return word;
    const before = words.slice(0, at).findLast((other) => !other.edited)?.start ?? 0;
    const after = words.slice(at + 1).find((other) => !other.edited)?.start ?? Infinity;
    const start = clamp(times[at][0], before, after);
    const end = Math.max(clamp(times[at][1], start, after), start + SHORTEST_SECONDS);
    return { ...word, start, end };
  });
}

const segmentOf = (segment, words) => ({ ...segment, words, start: words[0].start, end: words.at(-1).end });

// A transcript with another segment, or none, in place of one.
function withSegment(transcript, old, made) {
  return { ...transcript, segments: transcript.segments.flatMap((one) => (one !== old ? [one] : made ? [made] : [])) };
}
